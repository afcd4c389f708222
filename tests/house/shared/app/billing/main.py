"""The billing service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from importlib import import_module

from chancy import Job
from fastapi import FastAPI

from .workers.chancy_initialization import initialize_workers
from .workers.chancy_instance import get_chancy


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    try:
        async with initialize_workers():
            yield
    finally:
        pass


app = FastAPI(lifespan=lifespan)


@app.post("/push/{folder}/{function}")
async def push(folder: str, function: str, seconds: int, key: str | None = None) -> dict[str, str]:
    """Pushes a job that is due in some seconds."""
    module = import_module(f"..workers.{folder}.worker", __name__)
    wanted = getattr(module, function)
    job: Job = getattr(wanted, "job", None) or Job.from_func(wanted)  # type: ignore[no-untyped-call]
    job = job.with_scheduled_at(datetime.now(tz=UTC) + timedelta(seconds=seconds))
    reference = await get_chancy().push(job.with_unique_key(key) if key else job)
    return {"id": str(reference.identifier)}
