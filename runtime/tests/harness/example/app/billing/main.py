"""The billing service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from chancy_runtime import Reference, database_url
from chancy_runtime.web import health_router
from fastapi import FastAPI, HTTPException, Request
from psycopg_pool import AsyncConnectionPool

from app.observability import configure_logging, configure_sentry
from app.secret_values import get_secret_value

from .workers.chancy_initialization import DATABASE_SECRET, initialize_workers
from .workers.chancy_instance import get_chancy
from .workers.record.worker import record

configure_logging()
configure_sentry()


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Sets up what the service needs, its workers last; tears down in reverse."""
    url = database_url(DATABASE_SECRET, get_secret_value)
    pool = AsyncConnectionPool(
        url,
        min_size=0,
        # With 10 for the workers and 1 for LISTEN, below the 15 of Supabase's pooler.
        max_size=3,
        open=False,
        check=AsyncConnectionPool.check_connection,
    )
    await pool.open()
    app.state.pool = pool
    try:
        async with initialize_workers():
            yield
    finally:
        await pool.close()


app = FastAPI(title="billing", lifespan=lifespan)
app.include_router(health_router(get_chancy))


@app.get("/")
async def show_service(request: Request) -> dict[str, str]:
    """Answers with the database's time, through the service's own pool."""
    async with request.app.state.pool.connection() as connection:
        cursor = await connection.execute("SELECT now()::text")
        (now,) = await cursor.fetchone()
    return {"service": "billing", "database_time": now}


@app.post("/jobs/record", status_code=202)
async def push_job(note: str = "request") -> dict[str, str]:
    """Pushes a job and answers at once. An example: it has no authentication."""
    job = record.job.with_kwargs(note=note)
    reference = await get_chancy().push(job)
    return {"id": str(reference.identifier)}


@app.get("/jobs/{id}")
async def show_job(id: UUID) -> dict[str, str]:
    """Answers with the state of a job, such as pending, running or succeeded."""
    job = await get_chancy().get_job(Reference(id))
    if job is None:
        raise HTTPException(404, f"there is no job {id}")
    return {"id": str(id), "state": job.state.value}
