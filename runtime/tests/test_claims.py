"""Jobs that are taken in one statement equal those that Chancy takes."""

import asyncio
import dataclasses
import re
from collections.abc import AsyncIterator
from typing import Any

import chancy
import pytest
from chancy import Queue, QueuedJob
from chancy.executors.base import Executor
from chancy_runtime import Chancy, Settings, Worker
from chancy_runtime.execution.executors import AsyncExecutor
from chancy_runtime.jobs import claims
from chancy_runtime.postgres.connections import autocommit
from psycopg.rows import DictRow, dict_row

from harness.contract import uses
from harness.recorder import plain_chancy

pytestmark = pytest.mark.anyio

QUEUE = Queue(
    "default",
    executor=Chancy.Executor.Async,
    concurrency=1100,
    polling_interval=60,
)
INSERT = """
INSERT INTO billing_jobs (id, queue, func, kwargs, limits, meta, errors, attempts,
    max_attempts, priority, unique_key, completed_at, scheduled_at)
VALUES (gen_random_uuid(), 'default', 'a.b', '{"a": [1, null]}', '[{"t": "time", "v": 9}]',
    '{"m": {}}', '[{"traceback": "t", "attempt": 0}]', 1, 5, 7, 'key', NOW(), NOW()),
    (gen_random_uuid(), 'default', 'a.b', DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT,
    DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT)
"""


@pytest.fixture
async def worker(tables: str) -> AsyncIterator[Worker]:
    """A Worker that has not started."""
    async with plain_chancy(tables, settings=Settings(shutdown_grace=1)) as app:
        yield Worker(app, register_signal_handlers=False)


async def rows(app: Chancy) -> list[DictRow]:
    async with app.pool.connection() as connection:
        cursor = connection.cursor(row_factory=dict_row)
        await cursor.execute("SELECT * FROM billing_jobs ORDER BY priority DESC")
        return await cursor.fetchall()


async def take(worker: Worker, up_to: int) -> list[QueuedJob]:
    """Inserts two jobs and takes up to `up_to`."""
    async with autocommit(worker.chancy.pool) as connection:
        await connection.execute(INSERT)
        return await worker.fetch_jobs(QUEUE, connection, up_to=up_to)


def test_the_next_jobs_are_those_that_chancy_would_take() -> None:
    def choice(text: str) -> str:
        found = re.search(
            r"SELECT\s+id\s+FROM\s+{jobs}(.*?)FROM\s+selected", text, re.S
        )
        assert found, text
        names = {
            "up_to": "maximum_jobs_to_fetch",
            "worker": "worker_id",
            "{jobs} j": "{jobs}",
            # The time at which a job starts, not that at which the claim began to wait.
            "COALESCE(%(now)s::timestamptz, clock_timestamp())": "NOW()",
        }
        words = " ".join(found[1].split())
        for ours, theirs in names.items():
            words = re.sub(rf"{re.escape(ours)}(?!\w)", theirs, words)
        return words

    (theirs,) = (
        text
        for text in uses("chancy.worker:Worker.fetch_jobs")
        if "WITH selected_jobs" in text
    )

    assert choice(claims._TAKE) == choice(theirs), chancy.Worker.fetch_jobs


async def test_a_row_becomes_the_same_job_as_in_chancy(worker: Worker) -> None:
    taken = await take(worker, up_to=9)

    unpacked = [QueuedJob.unpack(row) for row in await rows(worker.chancy)]
    assert taken == unpacked and len(taken) == 2
    assert all(job.claim_id and job.started_at for job in taken)
    assert [job.priority for job in taken] == [7, 0]
    assert [set(vars(job)) for job in taken] == [set(vars(job)) for job in unpacked]


async def test_a_job_that_succeeds_changes_like_in_chancy(
    worker: Worker,
) -> None:
    job, _ = await take(worker, up_to=2)
    executor = AsyncExecutor(worker, QUEUE)
    done: list[Any] = []
    for kind in (AsyncExecutor, Executor):
        await kind.on_job_completed(executor, job=job, result=1)
        done.append(worker.outgoing.get_nowait())

    assert done[0].completed_at <= done[1].completed_at
    ours, theirs = (dataclasses.replace(each, completed_at=None) for each in done)
    assert ours == theirs and ours.state == QueuedJob.State.SUCCEEDED


async def test_a_queue_takes_more_jobs_than_one_claim_holds(worker: Worker) -> None:
    app = worker.chancy
    await app.declare(QUEUE)
    async with app.pool.connection() as connection:
        await connection.execute(
            "INSERT INTO billing_jobs (id, queue, func, kwargs) SELECT "
            "gen_random_uuid(), 'default', 'asyncio.sleep', '{\"delay\": 600}' "
            "FROM generate_series(1, 1200)"
        )
    async with worker, asyncio.timeout(60):
        while (
            running := sum(row["state"] == "running" for row in await rows(app))
        ) < 1100:
            await asyncio.sleep(0.05)

    assert running == 1100


async def test_statements_of_a_team_s_connection_stay_one_transaction(
    worker: Worker,
) -> None:
    pool = worker.chancy.pool
    async with autocommit(pool) as connection:
        assert connection.autocommit
    with pytest.raises(RuntimeError):
        async with autocommit(pool) as connection, connection.transaction():
            raise RuntimeError
    for _ in range(20):
        async with pool.connection() as connection:
            assert not connection.autocommit
    with pytest.raises(RuntimeError):
        async with pool.connection() as connection:
            await connection.execute(INSERT)
            raise RuntimeError

    assert await rows(worker.chancy) == []
