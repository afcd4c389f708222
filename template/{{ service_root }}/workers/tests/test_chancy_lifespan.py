"""The workers start and stop with the service."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest
from chancy import QueuedJob
from fastapi import FastAPI

from ..chancy_instance import get_chancy
from .conftest import running_workers
from .test_chancy_jobs import succeeds

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    async with running_workers():
        yield


async def test_jobs_run_while_the_service_is_up_and_nothing_is_left_after(
    tables: str,
) -> None:
    app = FastAPI(lifespan=lifespan)

    async with app.router.lifespan_context(app):
        chancy = get_chancy()
        reference = await chancy.push(succeeds.job.with_kwargs(text="hello"))
        done = await chancy.wait_for_job(reference, timeout=30)
        assert done is not None
        assert done.state == QueuedJob.State.SUCCEEDED

    with pytest.raises(RuntimeError, match="enter initialize_workers"):
        get_chancy()
    async with asyncio.timeout(5):
        while connections_to(tables):
            await asyncio.sleep(0.05)


def connections_to(url: str) -> int:
    """The connections to a database, without the one that asks."""
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        ).fetchone()
    assert row
    return int(row[0])


async def test_the_lines_of_chancy_reach_the_service_s_stream_once(
    tables: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        async with running_workers() as chancy:
            workers = len(chancy.workers)

    lines = [record.getMessage() for record in caplog.records]
    assert lines.count("Started plugin 'Leadership'") == workers
    assert logging.getLogger("chancy").handlers == []
