"""The workers start last and stop first also as a router, and a failed start is told."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from chancy import QueuedJob
from fastapi import FastAPI

from ..chancy_errors import WorkersError
from ..chancy_instance import get_chancy
from .test_chancy_jobs import succeeds

try:
    from ..chancy_router import workers_router
except WorkersError as too_old:
    pytest.skip(str(too_old), allow_module_level=True)

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[dict[str, str]]:
    """Goes on after every error, and needs the workers to be gone before it tears down."""
    with suppress(Exception):
        yield {"set up": "first"}
    with pytest.raises(RuntimeError, match="enter initialize_workers"):
        get_chancy()


async def test_the_workers_run_within_the_lifespan_of_the_app(tables: str) -> None:
    app = FastAPI(lifespan=lifespan)
    app.include_router(workers_router)

    async with app.router.lifespan_context(app) as state:
        assert state == {"set up": "first"}
        chancy = get_chancy()
        reference = await chancy.push(succeeds.job.with_kwargs(text="hello"))
        done = await chancy.wait_for_job(reference, timeout=30)
        assert done is not None
        assert done.state == QueuedJob.State.SUCCEEDED

    with pytest.raises(RuntimeError, match="enter initialize_workers"):
        get_chancy()


async def test_no_lifespan_swallows_a_failed_start(database_url: str) -> None:
    app = FastAPI(lifespan=lifespan)
    app.include_router(workers_router)

    with pytest.raises(BaseException, match="missing or too old") as failure:
        async with app.router.lifespan_context(app):
            pass

    assert not isinstance(failure.value, Exception)
    assert isinstance(failure.value.__cause__, WorkersError)
