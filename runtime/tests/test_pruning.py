"""Old jobs are deleted in short transactions; rows that stay do not add to their cost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import billing_service
import pytest
from chancy import Job
from chancy_runtime import Chancy, Pruner, Recovery, Worker
from chancy_runtime.plugins import maintenance
from chancy_runtime.testing import Service
from psycopg import AsyncConnection, AsyncCursor, sql
from psycopg.rows import DictRow, dict_row

from harness.databases import query
from harness.recorder import plain_chancy
from harness.starts import lock

pytestmark = pytest.mark.anyio

OLD = "NOW() - INTERVAL '2 days'"
INSERT = """
INSERT INTO billing_jobs (id, queue, func, kwargs, state, created_at, taken_by, claim_id)
SELECT gen_random_uuid(), 'queue ' || n % 5, 'a.b', '{{"pad": "{pad}"}}', '{state}',
    {created_at}, 'lost', gen_random_uuid()
FROM generate_series(1, {count}) AS n
"""


def insert(
    url: str,
    count: int,
    *,
    state: str = "succeeded",
    created_at: str = OLD,
    pad: str = "",
) -> None:
    query(url, INSERT.format(count=count, state=state, created_at=created_at, pad=pad))


def states(url: str) -> dict[str, int]:
    """The number of jobs in each state."""
    return dict(query(url, "SELECT state, count(*) FROM billing_jobs GROUP BY state"))


class Explaining(AsyncCursor[DictRow]):
    """Records the number of buffers that each statement of the library touches."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.buffers: list[int] = []

    async def execute(self, query: Any, *args: Any, **kwargs: Any) -> Self:
        if isinstance(query, sql.Composed):
            async with self.connection.transaction(force_rollback=True):
                explain = sql.SQL("EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) ")
                await super().execute(explain + query, *args, **kwargs)
                row = await self.fetchone()
                assert row
                plan = row["QUERY PLAN"][0]["Plan"]
            self.buffers.append(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])
        return await super().execute(query, *args, **kwargs)


@asynccontextmanager
async def explaining(url: str) -> AsyncIterator[Explaining]:
    async with await AsyncConnection.connect(url, autocommit=True) as connection:
        yield Explaining(connection, row_factory=dict_row)


async def pieces(
    pruner: Pruner, app: Chancy, cursor: AsyncCursor[DictRow]
) -> list[int]:
    """The number of deleted jobs for each piece of the table."""
    removed = [await pruner.prune(app, cursor)]
    while not pruner.is_at_the_start:
        removed.append(await pruner.prune(app, cursor))
    return removed


STAY = pytest.mark.parametrize(
    "stay", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)]
)


@STAY
async def test_a_batch_costs_no_more_where_more_rows_stay(
    tables: str, stay: int
) -> None:
    insert(tables, stay, created_at="NOW()", pad="x" * 300)
    insert(tables, 2500)
    query(tables, "VACUUM ANALYZE billing_jobs")
    async with explaining(tables) as cursor:
        removed = await pieces(Pruner(), plain_chancy(tables), cursor)
    ((pages,),) = query(tables, "SELECT pg_relation_size('billing_jobs') / 8192")

    assert sum(removed) == 2500 and max(removed) == maintenance.MOST_ROWS
    assert pages > 5 * maintenance.MOST_PAGES
    for rows, buffers in zip(removed, cursor.buffers, strict=True):
        assert buffers < 1.1 * maintenance.MOST_PAGES + 8 * rows
    assert states(tables) == {"succeeded": stay}


async def announce(worker: Worker, url: str) -> None:
    async with explaining(url) as cursor, cursor.connection.transaction():
        await worker.announce_worker(cursor.connection)


async def test_a_heartbeat_does_not_wait_for_a_lock_on_the_jobs(tables: str) -> None:
    worker = Worker(plain_chancy(tables), register_signal_handlers=False)
    worker.claims_are_in_doubt()

    with lock(tables, "LOCK TABLE billing_jobs IN SHARE MODE"):
        async with asyncio.timeout(60):
            await announce(worker, tables)

    assert query(tables, "SELECT worker_id FROM billing_workers") == [
        (worker.worker_id,)
    ]


async def test_nothing_is_rescued_while_heartbeats_may_be_late(tables: str) -> None:
    """A lock on the workers' table keeps those of all, and their jobs go on."""
    insert(tables, 1, state="running")
    app = plain_chancy(tables)
    worker = Worker(app, register_signal_handlers=False)

    async def rescued() -> int:
        async with explaining(tables) as cursor, cursor.connection.transaction():
            return await Recovery.recover(worker, app, cursor)

    await announce(worker, tables)
    query(tables, "UPDATE billing_workers SET last_seen = NOW() - INTERVAL '1 day'")
    worker.last_heartbeat -= 60
    app.monitor.calm_since = -1e9
    assert await rescued() == 0
    await announce(worker, tables)
    assert await rescued() == 0
    app.monitor.calm_since = -1e9
    assert await rescued() == 1


@STAY
@pytest.mark.parametrize("lost", [30, 1100])
async def test_a_rescue_costs_no_more_where_more_rows_stay(
    tables: str, stay: int, lost: int
) -> None:
    most = min(lost, maintenance.MOST_ROWS)
    # The server's statistics count all of them, but most are gone again.
    insert(tables, 30_000, state="running")
    query(tables, "ANALYZE billing_jobs")
    query(tables, "UPDATE billing_jobs SET state = 'failed'")
    insert(tables, stay, created_at="NOW()", pad="x" * 300)
    insert(tables, lost, state="running")
    query(tables, "VACUUM billing_jobs")
    app = plain_chancy(tables)
    app.monitor.calm_since = -1e9
    worker = Worker(app, register_signal_handlers=False)
    await announce(worker, tables)
    async with explaining(tables) as cursor, cursor.connection.transaction():
        assert await Recovery.recover(worker, app, cursor) == most
        goes_on = app.plugins["chancy.recovery"].wakeup_signal.is_set()
    ((pages,),) = query(tables, "SELECT pg_relation_size('billing_jobs') / 8192")

    assert cursor.buffers[0] < 200 + 30 * most
    assert pages > 5000
    assert goes_on == (lost > most)
    assert states(tables).get("running", 0) == lost - most


@pytest.mark.parametrize("most", [7, 10_000])
async def test_a_poll_prunes_each_piece_of_the_table_and_nothing_else(
    tables: str, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(maintenance, "MOST_PAGES", 1)
    for _ in range(5):
        insert(tables, 40)
        insert(tables, 20, created_at="NOW()")
        insert(tables, 20, state="pending")
    pruner = Pruner(Pruner.Rules.Age() > 60, maximum_to_prune=most)
    async with explaining(tables) as cursor:
        removed = await pieces(pruner, plain_chancy(tables), cursor)

    assert sum(removed) == 200 and max(removed) <= most
    assert states(tables) == {"succeeded": 100, "pending": 100}


async def test_a_rule_of_a_service_says_which_jobs_are_old(tables: str) -> None:
    for created_at in (OLD, "NOW()"):
        insert(tables, 50, created_at=created_at)
    rule = (Pruner.Rules.Queue().ilike("%E 3")) & (Pruner.Rules.Age() > 60)
    async with explaining(tables) as cursor:
        assert await pieces(Pruner(rule), plain_chancy(tables), cursor) == [10]


async def test_a_job_that_is_about_to_run_again_is_left_without_waiting(
    tables: str,
) -> None:
    insert(tables, 3)
    async with (
        await AsyncConnection.connect(tables) as other,
        explaining(tables) as cursor,
    ):
        await other.execute(
            "UPDATE billing_jobs SET state = 'retrying' WHERE queue = 'queue 1'"
        )
        async with asyncio.timeout(60):
            removed = await pieces(Pruner(), plain_chancy(tables), cursor)
        await other.commit()

    assert removed == [2]
    assert states(tables) == {"retrying": 1}


@pytest.mark.parametrize("old", [5000, pytest.param(1_000_000, marks=pytest.mark.slow)])
async def test_old_jobs_go_in_one_poll_while_jobs_run(
    tables: str, service: Service, old: int
) -> None:
    insert(tables, old)
    job = Job.from_func(billing_service.succeeds, kwargs={"text": "hello"})
    # The next poll is a minute away.
    async with service.running() as app:
        pushed = 0
        async with asyncio.timeout(50 + old / 2000):
            while states(tables).get("succeeded", 0) > pushed or not pushed:
                async for _ in app.push_many([job] * 100):
                    pushed += 100
                await asyncio.sleep(0.1)
            while states(tables) != {"succeeded": pushed}:
                await asyncio.sleep(0.1)


async def test_a_pruner_of_a_service_s_own_is_asked_once_in_a_poll(
    tables: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own(Pruner):
        asked = 0

        async def prune(self, chancy: Any, cursor: Any) -> int:
            self.asked += 1
            await cursor.execute("DELETE FROM billing_jobs")
            return int(cursor.rowcount)

    insert(tables, 3)
    own = Own()
    create = billing_service.create_chancy

    def with_own() -> Chancy:
        app = create()
        app.plugins["chancy.pruner"] = own
        return app

    monkeypatch.setattr(billing_service, "create_chancy", with_own)
    async with service.running(), asyncio.timeout(60):
        while states(tables):
            await asyncio.sleep(0.1)

    assert own.asked == 1
