import os
from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    yield
    record("down")


app = FastAPI(lifespan=lifespan)

if os.environ.get("THREADS") is None:
    initialize_workers = None
else:

    def initialize_workers(count):
        return count
