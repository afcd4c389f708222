from contextlib import asynccontextmanager

from fastapi import FastAPI, Request


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("open")
    yield {"tenant": "acme", "limit": 50}
    record("close")


app = FastAPI(lifespan=lifespan)


@app.get("/tenant")
async def tenant(request: Request):
    return request.state.tenant
