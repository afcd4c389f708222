"""Decides which of two versions side by side owns the queues and cron jobs.

In a rolling deploy both are up for a while, and either may restart meanwhile. The later
deployment wins, also when it is a rollback. The time of the deployment is in
WORKERS_DEPLOYED_AT, the same for all of its processes; without it the start of the
process counts, and then an old version that restarts wins as well.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import chancy
from chancy import QueuedJob
from psycopg import AsyncCursor, sql
from psycopg.rows import DictRow, dict_row

from chancy_runtime.jobs.claims import postpone
from chancy_runtime.errors import WorkersError

if TYPE_CHECKING:
    from chancy_runtime.worker import Worker

VARIABLE = "WORKERS_DEPLOYED_AT"
# Chancy's table of versions has room for it: four bytes, in seconds since this day.
_EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
_KEY = "deployment"
_started_at: datetime | None = None


@asynccontextmanager
async def deployment(app: chancy.Chancy) -> AsyncIterator[AsyncCursor[DictRow] | None]:
    """Opens a transaction in which this deployment, and no other process, may write.

    Yields its cursor, or None when a later deployment was here.

    Raises:
        WorkersError: WORKERS_DEPLOYED_AT is no time.
    """
    async with (
        app.pool.connection() as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        stamp = await _deployed_at(cursor)
        await cursor.execute(
            sql.SQL(
                "INSERT INTO {} AS v (version_of, version) VALUES (%s, %s) "
                "ON CONFLICT (version_of) DO UPDATE SET version = EXCLUDED.version "
                "WHERE v.version <= EXCLUDED.version"
            ).format(_table(app)),
            [_KEY, _seconds(stamp)],
        )
        if cursor.rowcount == 1:
            yield cursor
        else:
            app.log.info(
                "a later deployment than the one of %s owns the queues and cron jobs",
                stamp.isoformat(timespec="seconds"),
            )
            yield None


async def is_outdated(app: chancy.Chancy, cursor: AsyncCursor[DictRow]) -> bool:
    """Whether a later deployment than the one of this process was here."""
    stamp = await _deployed_at(cursor)
    await cursor.execute(
        sql.SQL("SELECT FROM {} WHERE version_of = %s AND version > %s").format(
            _table(app)
        ),
        [_KEY, _seconds(stamp)],
    )
    return await cursor.fetchone() is not None


async def leave_to_later(worker: "Worker", job: QueuedJob) -> bool:
    """Leaves a job that this version does not have to a later deployment.

    Returns:
        Whether there was one; otherwise the job is nobody's.
    """
    retry = worker.database_retry("leave_to_later")
    while True:
        try:
            async with (
                worker.chancy.pool.connection() as connection,
                connection.cursor(row_factory=dict_row) as cursor,
            ):
                if outdated := await is_outdated(worker.chancy, cursor):
                    await postpone(cursor, job, prefix=worker.chancy.prefix)
        except retry.errors as error:
            await retry.wait(error)
            continue
        retry.reset()
        if outdated:
            worker.chancy.log.info(
                "left the job %s (%s) to a later deployment", job.id, job.func
            )
        return outdated


async def server_time(cursor: AsyncCursor[DictRow]) -> datetime:
    """Returns the time of the server's clock at the start of the transaction."""
    await cursor.execute("SELECT NOW() AS now")
    row: dict[str, Any] | None = await cursor.fetchone()
    assert row
    now: datetime = row["now"]
    return now


async def _deployed_at(cursor: AsyncCursor[DictRow]) -> datetime:
    global _started_at
    now = await server_time(cursor)
    if text := os.environ.get(VARIABLE, ""):
        # A stamp from the future would keep the next deployments out.
        return min(_parsed(text), now)
    if _started_at is None:
        _started_at = now
    return _started_at


def _table(app: chancy.Chancy) -> sql.Identifier:
    return sql.Identifier(f"{app.prefix}schema_version")


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
            f"{VARIABLE} is {text!r}, which is no time from 2020 to 2080: set it to the "
            "time of the deployment in ISO 8601 (date -u +%FT%TZ) or in seconds"
        )
    return stamp
