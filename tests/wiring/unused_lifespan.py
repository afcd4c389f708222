from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("never")
    yield


app = FastAPI(title="billing")


@app.on_event("startup")
async def startup():
    record("startup")
