import os
from contextlib import asynccontextmanager

from fastapi import FastAPI

if os.environ.get("WITH_BROKER") == "1":

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        record("broker up")
        yield
        record("broker down")

else:

    @asynccontextmanager
    async def lifespan(app: FastAPI):
        record("up without broker")
        yield
        record("down without broker")


app = FastAPI(lifespan=lifespan)
