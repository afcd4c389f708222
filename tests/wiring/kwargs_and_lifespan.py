from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from fastapi import FastAPI

app_configs = {"title": "Billing", "root_path": "/billing"}


@asynccontextmanager
async def lifespan(_application: FastAPI) -> AsyncGenerator[None, None]:
    # Startup
    record("up")
    yield
    # Shutdown
    record("down")


app = FastAPI(**app_configs, lifespan=lifespan)
