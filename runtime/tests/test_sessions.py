"""Defaults of a role or a database that would break Chancy or psycopg do no harm."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest
from billing_service import (
    create_chancy,
    fails,
    get_chancy,
    initialize_workers,
    succeeds,
)
from chancy_runtime import QueuedJob, migrate
from chancy_runtime.testing import Service
from chancy_runtime.web import find_problems
from psycopg import sql

from harness.starts import wait_for_lock

pytestmark = pytest.mark.anyio

DEFAULTS = {
    "DateStyle": "SQL, DMY",
    "TimeZone": "Asia/Kathmandu",
    "default_transaction_isolation": "serializable",
    "idle_in_transaction_session_timeout": "1s",
    "idle_session_timeout": "1s",
    "statement_timeout": "5s",
    "row_security": "off",
    "jit": "on",
    "IntervalStyle": "sql_standard",
    "bytea_output": "escape",
    "client_encoding": "SQL_ASCII",
    "array_nulls": "off",
}


def change_default(url: str, name: str, value: str) -> None:
    """Changes a default of the database for new sessions."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("ALTER DATABASE {} SET {} = {}").format(
                sql.Identifier(connection.info.dbname),
                sql.Identifier(*name.split(".")),
                sql.Literal(value),
            )
        )


@asynccontextmanager
async def two_replicas() -> AsyncIterator[None]:
    """Two starts at the same time, like those of two processes."""
    async with initialize_workers(), initialize_workers():
        yield


@pytest.mark.parametrize("name", DEFAULTS)
async def test_workers_run_under_a_changed_default(name: str, tables: str) -> None:
    change_default(tables, name, DEFAULTS[name])

    async with two_replicas():
        chancy = get_chancy()
        reference = await chancy.push(succeeds.job.with_kwargs(text="hello"))
        done = await chancy.wait_for_job(reference, timeout=60)
        assert done is not None
        assert (done.state, done.attempts) == (QueuedJob.State.SUCCEEDED, 1)
        # Its result has no time at which it was completed.
        reference = await chancy.push(fails.job.with_max_attempts(2))
        async with asyncio.timeout(60):
            while (found := await chancy.get_job(reference)) is not None:
                if found.state == QueuedJob.State.RETRYING:
                    break
                await asyncio.sleep(0.02)
        async with chancy.pool.connection() as connection:
            await connection.execute("SELECT 1")
            for _ in range(30):  # Longer than a session or a transaction may be idle.
                await asyncio.sleep(0.1)
                assert await find_problems(get_chancy) == []
            await connection.execute("SELECT 1")


async def test_starts_at_once_are_not_refused_by_a_stricter_isolation(
    tables: str,
) -> None:
    change_default(tables, "default_transaction_isolation", "serializable")

    async def start() -> None:
        async with initialize_workers():
            await asyncio.sleep(0.2)

    await asyncio.gather(*(start() for _ in range(6)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lock_timeout", "1ms"),
        ("statement_timeout", "2s"),
        ("transaction_timeout", "2s"),
    ],
)
async def test_a_start_waits_for_another_one_as_long_as_that_takes(
    name: str, value: str, tables: str
) -> None:
    async def start() -> None:
        async with initialize_workers():
            pass

    async with await psycopg.AsyncConnection.connect(tables) as other:
        change_default(tables, name, value)
        await other.execute("LOCK TABLE billing_schema_version IN EXCLUSIVE MODE")
        starting = asyncio.create_task(start())
        await asyncio.to_thread(wait_for_lock, tables)
        await asyncio.sleep(2.5)
    await starting


async def test_a_session_has_its_settings_also_after_a_lost_connection(
    tables: str, service: Service
) -> None:
    change_default(tables, "DateStyle", "SQL, DMY")
    async with service.running() as chancy:
        with psycopg.connect(tables, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        async with asyncio.timeout(60):
            while await find_problems(get_chancy):
                await asyncio.sleep(0.05)
        async with chancy.pool.connection() as connection_of_pool:
            cursor = await connection_of_pool.execute("SHOW DateStyle")
            row = await cursor.fetchone()
    assert row == ("ISO, DMY",)


async def test_a_role_without_write_access_is_named_at_the_start(tables: str) -> None:
    change_default(tables, "default_transaction_read_only", "on")

    with pytest.raises(RuntimeError, match="point the URL at the primary"):
        async with initialize_workers():
            pass
    assert create_chancy().is_open is False


@pytest.mark.parametrize(
    ("name", "value", "way_out"),
    [
        ("default_transaction_read_only", "on", "point the URL at the primary"),
        ("search_path", "nowhere", "set search_path of the role or the database"),
    ],
)
async def test_a_default_that_keeps_the_tables_from_being_made_is_named(
    name: str,
    value: str,
    way_out: str,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change_default(database_url, name, value)
    monkeypatch.setenv("WORKERS_DATABASE_URL", database_url)

    with pytest.raises(RuntimeError, match=f"was rolled back: {way_out}"):
        await migrate(create_chancy())
