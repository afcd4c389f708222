"""The transactions in which people read and change jobs and queues."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import DictRow, dict_row

from chancy_runtime.postgres.connections import change_settings

TIMEOUT = 14
# The tables may have millions of rows: PostgreSQL must not read a whole table if it can use
# an index, whatever the planner's statistics are. The settings are for the transaction only,
# because a pooler may give its connection to other clients afterwards.
SETTINGS = {
    "DateStyle": "ISO",
    "statement_timeout": f"{TIMEOUT}s",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "jit": "off",
}


@asynccontextmanager
async def transaction(
    connection: AsyncConnection[Any],
) -> AsyncIterator[AsyncCursor[DictRow]]:
    """Opens a transaction of a command or of the dashboard, and yields its cursor."""
    async with (
        connection.transaction(),
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        await change_settings(cursor, SETTINGS, for_transaction=True)
        yield cursor
