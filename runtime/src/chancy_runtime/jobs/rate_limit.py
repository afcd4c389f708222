"""Keeps a queue's rate limit in each window of the server's clock."""

from datetime import datetime
from typing import Any

from chancy import Queue
from psycopg import AsyncConnection, sql


async def capacity(
    prefix: str, queue: Queue, conn: AsyncConnection[Any]
) -> tuple[int, datetime]:
    """Returns how many jobs a limited queue may start now, and the current time.

    The jobs must get that time as their start. NOW() is the time before the wait for the
    row's lock, so it could be in another window than the one in which the jobs are counted.
    Chancy 0.26 uses the worker's clock, so replicas whose clocks differ each open a window
    of their own. This uses the server's clock, with the queue's row locked.
    """
    limits = _limits(prefix)
    await conn.execute(
        sql.SQL(
            "INSERT INTO {} AS l (queue, window_start, count) VALUES (%s, 0, 0) "
            "ON CONFLICT (queue) DO UPDATE SET count = l.count"
        ).format(limits),
        [queue.name],
    )
    cursor = await conn.execute(
        sql.SQL(
            """
            UPDATE {} SET window_start = now.start,
                count = CASE WHEN window_start = now.start THEN count ELSE 0 END
            FROM (
                SELECT time, (floor(extract(epoch FROM time) / %(window)s)
                    * %(window)s)::int AS start
                FROM clock_timestamp() AS time
            ) AS now
            WHERE queue = %(queue)s RETURNING count, now.time
            """
        ).format(limits),
        {"queue": queue.name, "window": queue.rate_limit_window},
    )
    row = await cursor.fetchone()
    assert row and queue.rate_limit is not None
    started: int = row[0]
    now: datetime = row[1]
    return queue.rate_limit - started, now


async def use_capacity(
    prefix: str, queue: Queue, conn: AsyncConnection[Any], count: int
) -> None:
    """Counts started jobs towards the current window of a limited queue."""
    await conn.execute(
        sql.SQL("UPDATE {} SET count = count + %s WHERE queue = %s").format(
            _limits(prefix)
        ),
        [count, queue.name],
    )


def _limits(prefix: str) -> sql.Identifier:
    return sql.Identifier(f"{prefix}queue_rate_limits")
