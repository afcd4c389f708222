"""Decides which of two running versions owns the queues and cron jobs.

In a rolling deploy two versions run for a while, and either may restart. The later
deployment wins, even if it is a rollback. WORKERS_DEPLOYED_AT has the time of the
deployment, the same for all of its processes. Without it the start of the process counts,
so an old version that restarts wins too.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import chancy
from psycopg import AsyncCursor, sql
from psycopg.rows import DictRow, dict_row

from chancy_runtime.errors import WorkersError

VARIABLE = "WORKERS_DEPLOYED_AT"
# Chancy's table of versions has four bytes for a version; seconds since this day fit in it.
_EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
_KEY = "deployment"


class Deployment:
    """The deployment that a process belongs to.

    Args:
        app: The service's Chancy. Its table of versions has the latest deployment.
    """

    def __init__(self, app: chancy.Chancy) -> None:
        self._app = app
        self._started_at: datetime | None = None

    @asynccontextmanager
    async def owning(self) -> AsyncIterator[AsyncCursor[DictRow] | None]:
        """Opens a transaction in which only this process may write queues and cron jobs.

        Yields its cursor, or None if a later deployment has started.

        Raises:
            WorkersError: WORKERS_DEPLOYED_AT is not a time.
        """
        async with (
            self._app.pool.connection() as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            stamp = await self._deployed_at(cursor)
            await cursor.execute(
                sql.SQL(
                    "INSERT INTO {} AS v (version_of, version) VALUES (%s, %s) "
                    "ON CONFLICT (version_of) DO UPDATE SET version = EXCLUDED.version "
                    "WHERE v.version <= EXCLUDED.version"
                ).format(self._table),
                [_KEY, _seconds(stamp)],
            )
            if cursor.rowcount == 1:
                yield cursor
            else:
                self._app.log.info(
                    "a deployment later than that of %s owns the queues and cron jobs",
                    stamp.isoformat(timespec="seconds"),
                )
                yield None

    async def is_outdated(self, cursor: AsyncCursor[DictRow]) -> bool:
        """Whether a later deployment than that of this process has started."""
        stamp = await self._deployed_at(cursor)
        await cursor.execute(
            sql.SQL("SELECT FROM {} WHERE version_of = %s AND version > %s").format(
                self._table
            ),
            [_KEY, _seconds(stamp)],
        )
        return await cursor.fetchone() is not None

    async def _deployed_at(self, cursor: AsyncCursor[DictRow]) -> datetime:
        now = await server_time(cursor)
        if text := os.environ.get(VARIABLE, ""):
            # A time in the future would lock out the next deployments.
            return min(_parsed(text), now)
        if self._started_at is None:
            self._started_at = now
        return self._started_at

    @property
    def _table(self) -> sql.Identifier:
        return sql.Identifier(f"{self._app.prefix}schema_version")


async def server_time(cursor: AsyncCursor[DictRow]) -> datetime:
    """Returns the time of the server's clock at the start of the transaction."""
    await cursor.execute("SELECT NOW() AS now")
    row: dict[str, Any] | None = await cursor.fetchone()
    assert row
    now: datetime = row["now"]
    return now


def _seconds(stamp: datetime) -> int:
    return int((stamp - _EPOCH).total_seconds())


def _parsed(text: str) -> datetime:
    try:
        if text.isdecimal():
            stamp = datetime.fromtimestamp(int(text), tz=UTC)
        else:
            stamp = datetime.fromisoformat(text)
            stamp = stamp if stamp.tzinfo else stamp.replace(tzinfo=UTC)
    except (OverflowError, ValueError):
        stamp = _EPOCH
    if not _EPOCH < stamp < datetime(2080, 1, 1, tzinfo=UTC):
        raise WorkersError(
            f"{VARIABLE} is {text!r}, which is not a time from 2020 to 2080: set it to the "
            "time of the deployment in ISO 8601 (date -u +%FT%TZ) or in seconds"
        )
    return stamp
