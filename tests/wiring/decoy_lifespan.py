from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    """For the tests."""
    record("wrong")
    yield


@asynccontextmanager
async def service_lifespan(app: FastAPI):
    record("right")
    yield
    record("right down")


app = FastAPI(lifespan=service_lifespan)
