from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def resource(name: str):
    record(f"{name} up")
    try:
        yield name
    finally:
        record(f"{name} down")


@asynccontextmanager
async def lifespan(app: FastAPI):
    async with resource("redis") as redis:
        app.state.redis = redis
        async with resource("rabbit") as rabbit, resource("s3"):
            app.state.rabbit = rabbit
            yield
            record("draining")


app = FastAPI(lifespan=lifespan)
