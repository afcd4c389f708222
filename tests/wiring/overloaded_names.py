from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def app(app: FastAPI):
    record("up")
    yield
    record("down")


app = FastAPI(lifespan=app)
