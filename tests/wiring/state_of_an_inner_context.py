from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def clients():
    record("clients up")
    yield {"client": "http"}
    record("clients down")


@asynccontextmanager
async def lifespan(app: FastAPI):
    async with clients() as state:
        yield state


app = FastAPI(lifespan=lifespan)
