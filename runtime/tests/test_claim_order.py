"""Jobs are taken in Chancy's order, each once, even beside plain Chancy on the same tables."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import chancy
import psycopg
import pytest
from chancy import Queue, QueuedJob
from chancy_runtime import Chancy, Worker
from chancy_runtime.jobs import claims
from chancy_runtime.jobs.claims import Claims
from chancy_runtime.postgres.connections import autocommit
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.databases import database, query
from harness.recorder import make_tables, plain_chancy

QUEUE = Queue("default", executor=Chancy.Executor.Async)
# A row: priority, state, attempts, and the minutes at which it was pushed and scheduled.
ROWS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 5, -5, None]),
        st.sampled_from(["pending", "pending", "retrying", "running"]),
        st.sampled_from([0, 0, 0, 1, 3, None]),
        st.integers(-3, -2),
        st.integers(-5, 1),
    ),
    min_size=4,
    max_size=20,
)
INSERT = """
INSERT INTO billing_jobs (id, queue, func, max_attempts, priority, state, attempts,
    created_at, scheduled_at)
VALUES (gen_random_uuid(), 'default', 'a.b', 3, %s, %s, %s,
    NOW() + %s * INTERVAL '1 minute', NOW() + %s * INTERVAL '1 minute')
"""
MANY = """
INSERT INTO billing_jobs (id, queue, func, priority, created_at, scheduled_at)
SELECT gen_random_uuid(), 'default', 'a.b', 0, NOW() - INTERVAL '1 day',
    NOW() - CASE i %% 2 WHEN %s THEN INTERVAL '1 day' ELSE random() * INTERVAL '1 hour' END
FROM generate_series(1, %s) i
"""
# Like the claim for tables without the indexes, which is Chancy's own statement.
IN_ORDER = """
SELECT id FROM billing_jobs
WHERE queue = 'default' AND (state = 'pending' OR state = 'retrying')
    AND attempts < max_attempts AND (scheduled_at IS NULL OR scheduled_at <= NOW())
ORDER BY priority DESC, id ASC
"""


@pytest.fixture(scope="module")
def url(server_url: str) -> Iterator[str]:
    with database(server_url) as url:
        make_tables(url)
        yield url


@asynccontextmanager
async def entered(url: str) -> AsyncIterator[Chancy]:
    """A Chancy with an empty table of jobs."""
    async with plain_chancy(url, max_connection_pool_size=12) as app:
        async with app.pool.connection() as connection:
            await connection.execute("TRUNCATE billing_jobs")
        yield app


def claims_of(app: Chancy, worker: str = "worker") -> Claims:
    return Claims(
        prefix=app.prefix,
        worker_id=worker,
        log=logging.getLogger(),
        held=lambda: [],
        wake=lambda _: None,
    )


async def take(app: Chancy, up_to: int, queue: Queue = QUEUE) -> list[QueuedJob]:
    async with autocommit(app.pool) as connection:
        return await claims_of(app).fetch(queue, connection, up_to=up_to)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(rows=ROWS, up_to=st.integers(1, 8))
def test_the_next_jobs_are_those_of_chancy_in_its_order(
    rows: list[tuple[object, ...]], up_to: int, url: str
) -> None:
    async def claim() -> None:
        async with entered(url) as app:
            async with app.pool.connection() as connection:
                await connection.cursor().executemany(INSERT, rows)
            expected = [id for (id,) in query(url, IN_ORDER)]
            for start in range(0, len(expected) + 1, up_to):
                taken = await take(app, up_to)
                assert [job.id for job in taken] == expected[start : start + up_to]

    asyncio.run(claim())


def test_more_overdue_jobs_than_are_sorted_go_by_when_they_fell_due(url: str) -> None:
    async def claim() -> None:
        more = claims._SORTED + 200
        async with entered(url) as app:
            async with app.pool.connection() as connection:
                await connection.execute(MANY, [2, more])
                await connection.execute(INSERT, [7, "pending", 0, -9, -1])
            (first,) = await take(app, 1)
            assert first.priority == 7
            query(url, "UPDATE billing_jobs SET state = 'failed' WHERE priority = 7")
            last = {
                id
                for (id,) in query(
                    url,
                    "SELECT id FROM billing_jobs WHERE state = 'pending' "
                    "ORDER BY scheduled_at DESC LIMIT 200",
                )
            }
            taken = await take(app, 100)
            assert len(taken) == 100 and not last & {job.id for job in taken}
            assert len(await take(app, more)) == more - 100

    asyncio.run(claim())


def test_jobs_that_others_hold_are_passed_over(url: str) -> None:
    """However many they hold, no claim is empty while a job is free."""

    async def claim() -> None:
        held = claims._SORTED + 100
        async with entered(url) as app:
            async with app.pool.connection() as connection:
                await connection.execute(MANY, [0, 2 * held])
            with psycopg.connect(url) as other:
                for way in ("<=", ">"):
                    other.execute(
                        "SELECT FROM billing_jobs WHERE scheduled_at - created_at "
                        f"{way} INTERVAL '0' ORDER BY scheduled_at LIMIT %s FOR UPDATE",
                        [held - 50],
                    )
                assert len(await take(app, 500)) == 100

    asyncio.run(claim())


def test_no_job_is_taken_twice_by_many_of_both_kinds(url: str) -> None:
    async def drain(app: Chancy, worker: chancy.Worker, taken: list[str]) -> None:
        idle = 0
        while idle < 3:
            async with autocommit(app.pool) as connection:
                jobs = await worker.fetch_jobs(QUEUE, connection, up_to=7)
            taken += [str(job.id) for job in jobs]
            idle = 0 if jobs else idle + 1

    async def claim() -> None:
        jobs = 2000
        async with entered(url) as app:
            async with app.pool.connection() as connection:
                await connection.execute(MANY, [0, jobs])
            taken: list[str] = []
            kinds = [Worker] * 4 + [chancy.Worker] * 4
            await asyncio.gather(
                *(
                    drain(app, kind(app, register_signal_handlers=False), taken)
                    for kind in kinds
                )
            )
        assert max(Counter(taken).values()) == 1 and len(taken) == jobs

    asyncio.run(claim())


@pytest.mark.parametrize("pipeline", [True, False])
def test_a_claim_keeps_the_plan_that_does_not_depend_on_statistics(
    pipeline: bool, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a libpq that can send statements together, and with an older libpq."""
    if not pipeline:
        monkeypatch.setattr(psycopg.capabilities, "has_pipeline", lambda: False)

    async def claim() -> None:
        async with entered(url) as app, autocommit(app.pool) as connection:
            limited = Queue("default", rate_limit=1000, rate_limit_window=60)
            worker = claims_of(app)
            for queue in [QUEUE, limited] * 5:
                await worker.fetch(queue, connection, up_to=3)
            found = await connection.execute(
                "SELECT generic_plans, custom_plans, current_setting('enable_sort') "
                "FROM pg_prepared_statements WHERE statement LIKE %s",
                ["%fallen_due%"],
            )
            assert set(await found.fetchall()) == {(5, 0, "on")}

    asyncio.run(claim())
