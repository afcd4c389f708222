from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def default_lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    record("default up")
    yield
    record("default down")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncGenerator[None, None]:
    """Runs the default lifespan and then the service's own."""
    async with default_lifespan(app):
        record("own up")
        yield
        record("own down")


app = FastAPI(lifespan=lifespan)
