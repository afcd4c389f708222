from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from .workers.chancy_initialization import initialize_workers


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    try:
        async with initialize_workers():
            yield
    finally:
        print("bye")


app = FastAPI(lifespan=lifespan)
