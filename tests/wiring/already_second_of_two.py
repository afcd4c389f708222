from contextlib import asynccontextmanager

from fastapi import FastAPI

from .billing.workers.chancy_initialization import (
    initialize_workers as initialize_billing_workers,
)
from .shipping.workers.chancy_initialization import initialize_workers


@asynccontextmanager
async def lifespan(app: FastAPI):
    async with initialize_workers(), initialize_billing_workers():
        yield


app = FastAPI(lifespan=lifespan)
