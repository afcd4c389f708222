from contextlib import asynccontextmanager

from fastapi import FastAPI

from .compat import *
from .compat import initialize_workers


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    yield
    record("down")


app = FastAPI(lifespan=lifespan)
