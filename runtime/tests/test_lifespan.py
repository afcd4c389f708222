"""The workers start and stop with the service."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import billing_service
import psycopg
import pytest
from billing_service import (
    create_chancy,
    get_chancy,
    initialize_workers,
    sleeps,
    succeeds,
)
from chancy_runtime import Chancy, QueuedJob, Reference
from chancy_runtime.testing import Service
from chancy_runtime.web import find_problems
from fastapi import FastAPI

from harness.databases import connections_to

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    async with initialize_workers():
        yield


async def test_jobs_run_while_the_service_is_up_and_nothing_is_left_after(
    tables: str,
) -> None:
    app = FastAPI(lifespan=lifespan)

    async with app.router.lifespan_context(app):
        chancy = get_chancy()
        reference = await chancy.push(succeeds.job.with_kwargs(text="hello"))
        done = await chancy.wait_for_job(reference, timeout=60)
        assert done is not None
        assert done.state == QueuedJob.State.SUCCEEDED

    with pytest.raises(RuntimeError, match="not running"):
        get_chancy()
    async with asyncio.timeout(60):
        while connections_to(tables):
            await asyncio.sleep(0.05)


async def test_the_workers_go_on_when_the_server_ends_their_connections(
    chancy: Chancy, tables: str
) -> None:
    with psycopg.connect(tables, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    reference = await chancy.push(succeeds.job.with_kwargs(text="hello"))

    done = await chancy.wait_for_job(reference, timeout=60)
    assert done is not None
    assert (done.state, done.attempts) == (QueuedJob.State.SUCCEEDED, 1)
    async with asyncio.timeout(60):
        while await find_problems(get_chancy):
            await asyncio.sleep(0.05)


async def test_a_job_that_a_stop_cuts_short_waits_for_the_next_start(
    tables: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(billing_service.SETTINGS, shutdown_grace=1)
    monkeypatch.setattr(billing_service, "SETTINGS", settings)
    async with service.running() as chancy:
        reference = await chancy.push(sleeps)
        async with asyncio.timeout(60):
            while await state_of(chancy, reference) != (QueuedJob.State.RUNNING, 0):
                await asyncio.sleep(0.05)

    async with create_chancy() as chancy:
        assert await state_of(chancy, reference) == (QueuedJob.State.PENDING, 0)


async def state_of(chancy: Chancy, reference: Reference) -> tuple[QueuedJob.State, int]:
    """The state of a job, and its number of used attempts."""
    found = await chancy.get_job(reference)
    assert found is not None
    return found.state, found.attempts


async def test_the_lines_of_chancy_reach_the_service_s_stream_once(
    tables: str, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    before = [*logging.getLogger("chancy").handlers]
    with caplog.at_level(logging.INFO):
        async with service.running() as chancy:
            workers = len(chancy.workers)

    lines = [record.getMessage() for record in caplog.records]
    assert lines.count("Started plugin 'Leadership'") == workers
    assert logging.getLogger("chancy").handlers == before
