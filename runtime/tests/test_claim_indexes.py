"""`migrate` builds the library's indexes while the queues stay in use."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest
from billing_service import create_chancy, succeeds
from chancy_runtime import Chancy, WorkersError, check_database, migrate
from chancy_runtime.commands.tables import read_status
from chancy_runtime.postgres import claim_indexes
from chancy_runtime.testing import RunJob, Service
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from harness.databases import query

pytestmark = pytest.mark.anyio

NAMES = ("billing_runtime_jobs_now", "billing_runtime_jobs_later")
INSERT = "INSERT INTO billing_jobs (id, queue, func) VALUES (gen_random_uuid(), 'idle', 'a.b')"


@pytest.fixture
def without_indexes(tables: str) -> str:
    """A database with the tables of an older release, and a job in them."""
    for name in NAMES:
        query(tables, f"DROP INDEX {name}")
    query(
        tables,
        "DELETE FROM billing_schema_version WHERE version_of = 'chancy_runtime'",
    )
    query(tables, INSERT)
    return tables


async def library() -> dict[str, object]:
    """The library's part of the status."""
    status = await read_status(create_chancy())
    (part,) = [part for part in status["parts"] if part["name"] == "chancy_runtime"]
    assert status["ok"] == (not part["due"])
    return dict(part)


def valid_indexes(url: str) -> list[str]:
    rows = query(
        url,
        "SELECT indexrelid::regclass::text FROM pg_index WHERE indisvalid "
        "AND NOT indisunique AND indexrelid::regclass::text = ANY(%s)",
        list(NAMES),
    )
    return [name for (name,) in rows]


@asynccontextmanager
async def open_transaction(url: str) -> AsyncIterator[AsyncConnection[TupleRow]]:
    """A transaction that has written a job and does not end."""
    async with await AsyncConnection.connect(url) as connection:
        await connection.execute(INSERT)
        yield connection
        await connection.rollback()


async def test_status_shows_the_indexes_and_migrate_builds_them(
    without_indexes: str,
) -> None:
    before = await library()
    assert before["text"] == "chancy_runtime: nothing applied, due: v1"

    await asyncio.gather(*(migrate(create_chancy()) for _ in range(3)))

    assert (await library())["text"] == "chancy_runtime: v1 applied"
    assert sorted(valid_indexes(without_indexes)) == sorted(NAMES)
    assert query(
        without_indexes,
        "SELECT version FROM billing_schema_version WHERE version_of = 'chancy_runtime'",
    ) == [(1,)]


async def test_workers_on_tables_without_indexes_work_and_log_once_what_to_run(
    without_indexes: str,
    service: Service,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        async with service.running() as chancy:
            job = await chancy.push(succeeds.job.with_kwargs(text="hello"))
            done = await chancy.wait_for_job(job, timeout=60)
            assert done and done.state == done.State.SUCCEEDED

    lines = [line for line in caplog.messages if "the library's indexes" in line]
    assert len(lines) == 1
    assert ".workers migrate, then start the workers again" in lines[0]


async def test_a_start_with_the_indexes_logs_nothing(
    tables: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        await check_database(create_chancy())

    assert "indexes" not in caplog.text


async def test_an_unfinished_index_is_built_again(
    without_indexes: str, caplog: pytest.LogCaptureFixture
) -> None:
    query(without_indexes, INSERT)
    with pytest.raises(psycopg.errors.UniqueViolation):
        query(
            without_indexes,
            f"CREATE UNIQUE INDEX CONCURRENTLY {NAMES[0]} ON billing_jobs (queue)",
        )
    assert query(without_indexes, "SELECT to_regclass(%s)::text", NAMES[0]) == [
        (NAMES[0],)
    ]
    with caplog.at_level(logging.WARNING):
        await check_database(create_chancy())
    assert "the library's indexes" in caplog.text

    await migrate(create_chancy())

    assert sorted(valid_indexes(without_indexes)) == sorted(NAMES)
    # A dropped index is due again.
    query(without_indexes, f"DROP INDEX {NAMES[1]}")
    assert (await library())["due"] == [1]
    await migrate(create_chancy())
    assert (await library())["due"] == []


async def test_a_live_queue_goes_on_while_an_open_transaction_delays_the_build(
    without_indexes: str,
) -> None:
    (name,) = query(without_indexes, "SELECT current_database()")[0]
    query(without_indexes, f"ALTER DATABASE {name} SET statement_timeout = '3s'")
    query(without_indexes, f"ALTER DATABASE {name} SET lock_timeout = '3s'")
    waits = "SELECT 1 FROM pg_locks WHERE locktype = 'virtualxid' AND NOT granted"
    async with open_transaction(without_indexes):
        builds = [asyncio.create_task(migrate(create_chancy())) for _ in range(2)]
        async with asyncio.timeout(60):
            while not query(without_indexes, waits):
                await asyncio.sleep(0.05)
        query(without_indexes, INSERT)
        query(without_indexes, "UPDATE billing_jobs SET state = 'running'")
        # Longer than the timeouts of the database.
        await asyncio.sleep(3.5)
        assert not any(build.done() for build in builds)
    await asyncio.gather(*builds)

    assert sorted(valid_indexes(without_indexes)) == sorted(NAMES)


async def test_a_transaction_that_does_not_end_is_named(
    without_indexes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim_indexes, "_LOCK_TIMEOUT", 2)
    async with open_transaction(without_indexes) as other:
        pid = other.info.backend_pid
        async with asyncio.timeout(60):
            with pytest.raises(WorkersError) as error:
                await migrate(create_chancy())

    assert f"for the pid {pid} (client backend, idle in transaction, " in str(
        error.value
    )
    assert f"SELECT pg_terminate_backend({pid}), and run migrate" in str(error.value)
    # The tables were migrated before, and the next migrate repairs the unfinished index.
    assert (await library())["due"] == [1]
    await migrate(create_chancy())
    assert (await library())["due"] == []


async def test_another_migrate_that_does_not_end_is_named(
    without_indexes: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(claim_indexes, "_LONGEST_WAIT", 1)
    async with await AsyncConnection.connect(without_indexes) as other:
        await claim_indexes._lock(other, "billing_")
        with pytest.raises(WorkersError) as error:
            await migrate(create_chancy())
        assert f"with the pid {other.info.backend_pid}:" in str(error.value)

    await migrate(create_chancy())
    assert (await library())["due"] == []


async def test_a_later_version_s_indexes_are_left_alone(
    tables: str, caplog: pytest.LogCaptureFixture
) -> None:
    query(
        tables,
        "UPDATE billing_schema_version SET version = 2 WHERE version_of = 'chancy_runtime'",
    )
    query(tables, f"DROP INDEX {NAMES[0]}")
    with caplog.at_level(logging.WARNING):
        await check_database(create_chancy())

    await migrate(create_chancy())

    assert valid_indexes(tables) == [NAMES[1]]
    assert (await library())["text"] == (
        "chancy_runtime: v1 to v2 applied by a later version (this one has v1)"
    )
    assert "indexes" not in caplog.text


async def test_the_same_index_of_a_later_chancy_is_noticed(tables: str) -> None:
    definition = claim_indexes._INDEXES["runtime_jobs_now"]
    query(
        tables, f"CREATE INDEX billing_idx_jobs_of_chancy ON billing_jobs {definition}"
    )

    assert (await library())["text"] == (
        "chancy_runtime: v1 applied; billing_idx_jobs_of_chancy is the same index "
        f"as {NAMES[0]}"
    )


async def test_chancy_has_no_index_for_claims(database_url: str) -> None:
    """If a later one has it, the library's indexes and its claim can be removed."""
    async with create_chancy() as chancy:
        await chancy.migrate()

    indexes = query(
        database_url,
        "SELECT regexp_replace(indexdef, '^.* USING btree | WHERE .*$', '', 'g') "
        "FROM pg_indexes WHERE tablename = 'billing_jobs' ORDER BY 1",
    )
    assert [columns for (columns,) in indexes] == [
        "(id)",
        "(queue, state)",
        "(queue, state, attempts, scheduled_at, priority DESC, id DESC)",
        "(unique_key)",
    ]


async def test_plain_chancy_works_on_the_same_tables(
    chancy: Chancy, tables: str, run_job: RunJob
) -> None:
    await chancy.migrate()
    assert (await library())["due"] == []
    await run_job(succeeds.job.with_kwargs(text="hello"))
