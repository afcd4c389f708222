from contextlib import asynccontextmanager

import app.billing.workers.chancy_initialization
from fastapi import FastAPI


@asynccontextmanager
async def lifespan(_: FastAPI):
    manager = app.billing.workers.chancy_initialization.initialize_workers()
    await manager.__aenter__()
    try:
        yield
    finally:
        await manager.__aexit__(None, None, None)


api = FastAPI(lifespan=lifespan)
