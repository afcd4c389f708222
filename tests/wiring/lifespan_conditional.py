import os
from contextlib import asynccontextmanager

from fastapi import FastAPI

TESTING = os.environ.get("TESTING") == "yes"


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("real")
    yield
    record("real down")


@asynccontextmanager
async def test_lifespan(app: FastAPI):
    record("test")
    yield


app = FastAPI(lifespan=test_lifespan if TESTING else lifespan)
