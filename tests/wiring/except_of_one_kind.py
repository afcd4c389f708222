import asyncio
from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    try:
        yield
    except asyncio.CancelledError:
        record("cancelled")
    record("down")


app = FastAPI(lifespan=lifespan)
