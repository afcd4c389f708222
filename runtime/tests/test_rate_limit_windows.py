"""A job starts in the window of the rate limit in which it is counted."""

import asyncio
import time

import psycopg
import pytest
from billing_service import succeeds
from chancy_runtime import Chancy, Queue
from chancy_runtime.jobs.claims import Claims
from chancy_runtime.postgres.connections import autocommit
from chancy_runtime.testing import Service

from harness.starts import wait_for_lock

pytestmark = pytest.mark.anyio

WINDOW = 3
QUEUE = Queue(
    "limited",
    executor=Chancy.Executor.Async,
    rate_limit=5,
    rate_limit_window=WINDOW,
    tags=set(),  # No worker takes its jobs: the test does.
)


async def test_a_claim_that_waits_across_the_edge_of_a_window(
    chancy: Chancy, tables: str, service: Service
) -> None:
    await chancy.declare(QUEUE)
    job = succeeds.job.with_kwargs(text="hello").with_queue("limited")
    _ = [each async for each in chancy.push_many([job] * 8)]
    claims = Claims(
        prefix=chancy.prefix,
        worker_id="test",
        log=chancy.log,
        held=lambda: [],
        wake=lambda _: None,
    )

    async def claim() -> int:
        async with autocommit(chancy.pool) as connection:
            return len(await claims.fetch(QUEUE, connection, up_to=5))

    assert await claim() == 5
    with psycopg.connect(tables) as other:
        other.execute("LOCK TABLE billing_queue_rate_limits")
        waiting = asyncio.create_task(claim())
        await asyncio.to_thread(wait_for_lock, tables)
        # Wait until the next window has begun on the server's clock.
        await asyncio.sleep(WINDOW - time.time() % WINDOW + 0.2)
        assert not waiting.done()
    assert await waiting == 3

    with psycopg.connect(tables) as connection:
        rows = connection.execute(
            "SELECT floor(extract(epoch FROM started_at) / %s) * %s AS start, count(*) "
            "FROM billing_jobs WHERE started_at IS NOT NULL GROUP BY start",
            [WINDOW, WINDOW],
        ).fetchall()
        counted = connection.execute(
            "SELECT window_start, count FROM billing_queue_rate_limits "
            "WHERE queue = 'limited'"
        ).fetchone()
    assert counted is not None
    last = max(rows)
    assert (int(last[0]), last[1]) == counted
    assert all(count <= 5 for _, count in rows), rows
