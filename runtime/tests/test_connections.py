"""A cancelled query ends at once, and its connection leaves no line in the log."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from chancy_runtime.postgres.connections import (
    Connection,
    autocommit,
    in_one_transaction,
)
from psycopg_pool import AsyncConnectionPool

from harness.cancelling import cancelled

pytestmark = pytest.mark.anyio

Pool = AsyncConnectionPool[Connection]


@pytest.fixture
async def pool(database_url: str) -> AsyncIterator[Pool]:
    async with AsyncConnectionPool(
        database_url, connection_class=Connection, min_size=1, max_size=1, open=False
    ) as pool:
        yield pool


async def in_a_block_of_the_pool(pool: Pool) -> None:
    async with pool.connection() as connection:
        await connection.execute("SELECT pg_sleep(0.005)")
        await connection.execute("SELECT 2")


async def in_a_transaction(pool: Pool) -> None:
    async with pool.connection() as connection, connection.transaction():
        await connection.execute("SELECT pg_sleep(0.005)")
        await connection.execute("SELECT 2")


async def in_one_round_trip(pool: Pool) -> None:
    async with pool.connection() as connection, in_one_transaction(connection):
        await connection.execute("SELECT pg_sleep(0.005)")
        await connection.execute("SELECT 2")


async def with_autocommit(pool: Pool) -> None:
    async with autocommit(pool) as connection:
        await connection.execute("SELECT pg_sleep(0.005)")


@pytest.mark.parametrize(
    "work",
    [in_a_block_of_the_pool, in_a_transaction, in_one_round_trip, with_autocommit],
)
async def test_a_cancelled_query_leaves_no_line_in_the_log(
    pool: Pool,
    work: Callable[[Pool], Awaitable[None]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    # The library itself filters the pool's lines about lost connections out of the log.
    caplog.set_level(logging.ERROR, "psycopg.pool")
    # It depends on the server whether psycopg sees the end of the connection, so try often.
    for _ in range(8):
        number = 0
        while await cancelled(work(pool), number):
            number += 1
        assert number > 0, "no query was waited for"

    assert caplog.messages == []
    await work(pool)
