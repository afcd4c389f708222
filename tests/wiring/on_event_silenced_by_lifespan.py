from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("lifespan up")
    yield
    record("lifespan down")


app = FastAPI(lifespan=lifespan)


@app.on_event("startup")
async def never_called():
    record("never")
