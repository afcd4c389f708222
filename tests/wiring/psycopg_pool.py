import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from psycopg_pool import AsyncConnectionPool

DATABASE_URL = os.environ.get("DATABASE_URL", "postgresql://127.0.0.1:1/none")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    pool = AsyncConnectionPool(DATABASE_URL, min_size=0, max_size=5, open=False)
    async with pool:
        app.state.pool = pool
        record(f"pool closed: {pool.closed}")
        yield
        record(f"pool closed: {pool.closed}")
    record(f"pool closed: {pool.closed}")


app = FastAPI(lifespan=lifespan)


@app.get("/now")
async def now(request: Request):
    async with request.app.state.pool.connection() as connection:
        cursor = await connection.execute("SELECT now()")
        return await cursor.fetchone()
