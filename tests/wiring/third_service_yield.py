from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app.shipping.workers.chancy_initialization import (
    initialize_workers as initialize_shipping_workers,
)
from app.users.workers.chancy_initialization import (
    initialize_workers as initialize_users_workers,
)


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    async with initialize_shipping_workers():
        async with initialize_users_workers():
            yield


app = FastAPI(lifespan=lifespan)
