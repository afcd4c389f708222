from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def resource(name: str):
    record(f"{name} up")
    yield name
    record(f"{name} down")


@asynccontextmanager
async def lifespan(app: FastAPI):
    async with (
        resource("db") as db,
        resource("cache") as cache,
    ):
        app.state.db, app.state.cache = db, cache
        yield


app = FastAPI(lifespan=lifespan)
