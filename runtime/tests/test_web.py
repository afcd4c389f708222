"""The workers start last and stop first as a router too, and a failed start is reported."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from billing_service import get_chancy, initialize_workers, succeeds
from chancy_runtime import QueuedJob, WorkersError
from chancy_runtime.web import find_problems, workers_router
from fastapi import FastAPI

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, str]]:
    """Expects the workers to be gone before it tears down."""
    yield {"set up": "first"}
    with pytest.raises(RuntimeError, match="not running"):
        get_chancy()


async def test_the_workers_run_within_the_lifespan_of_the_app(tables: str) -> None:
    app = FastAPI(lifespan=lifespan)
    app.include_router(workers_router(initialize_workers))

    async with app.router.lifespan_context(app) as state:
        assert state == {"set up": "first"}
        async with asyncio.timeout(60):
            while await find_problems(get_chancy):
                await asyncio.sleep(0.02)
        chancy = get_chancy()
        reference = await chancy.push(succeeds.job.with_kwargs(text="hello"))
        done = await chancy.wait_for_job(reference, timeout=60)
        assert done is not None
        assert done.state == QueuedJob.State.SUCCEEDED

    with pytest.raises(RuntimeError, match="not running"):
        get_chancy()


@asynccontextmanager
async def forgiving_lifespan(_app: FastAPI) -> AsyncIterator[None]:
    """Goes on after every error."""
    with suppress(Exception):
        yield


@asynccontextmanager
async def fail() -> AsyncIterator[None]:
    raise WorkersError("the tables are missing")
    yield


async def test_no_lifespan_swallows_a_failed_start() -> None:
    app = FastAPI(lifespan=forgiving_lifespan)
    app.include_router(workers_router(fail))

    with pytest.raises(BaseException, match="the tables are missing") as failure:
        async with app.router.lifespan_context(app):
            pass

    assert not isinstance(failure.value, Exception)
    assert isinstance(failure.value.__cause__, WorkersError)
