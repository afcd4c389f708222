"""The billing service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI


class Pool:
    async def open(self) -> None:
        record("pool open")

    async def close(self) -> None:
        record("pool closed")


pool = Pool()


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Application lifespan context manager.

    On startup, initialize the async Postgres pool.
    On shutdown, clean up the pool.
    """
    await pool.open()
    try:
        yield
    finally:
        await pool.close()


app = FastAPI(title="billing", lifespan=lifespan)
