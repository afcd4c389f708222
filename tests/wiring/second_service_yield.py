from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from .shipping.workers.chancy_initialization import initialize_workers


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    record("pool open")
    try:
        async with initialize_workers():
            yield
    finally:
        record("pool closed")


app = FastAPI(lifespan=lifespan)
