"""What a Worker does to the rows of jobs, beyond what Chancy does."""

import dataclasses
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from uuid import UUID

import chancy
from chancy import Queue, QueuedJob
from psycopg import AsyncConnection, AsyncCursor, sql
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Json

from .chancy_errors import WorkersError

if TYPE_CHECKING:
    from .chancy_worker import Worker


def _table(app: chancy.Chancy, name: str) -> sql.Identifier:
    return sql.Identifier(f"{app.prefix}{name}")


async def give_back(
    cursor: AsyncCursor[DictRow],
    worker: "Worker",
    *,
    running: Iterable[UUID | None] = (),
    older_than: float | None = None,
) -> list[str]:
    """Puts jobs back into their queues that a worker took but does not run.

    At its stop these are the ones that did not end within the grace; after a lost
    connection, those whose taking it never heard of. No attempt is used up.

    Args:
        running: The claims of those that it does run.
        older_than: How many seconds before this transaction the jobs were taken, or
            more; None for all of them.

    Returns:
        The names of their queues.
    """
    query = sql.SQL(
        """
        UPDATE {jobs} SET state = 'pending', taken_by = NULL, claim_id = NULL,
            started_at = NULL
        WHERE state = 'running' AND taken_by = %(worker)s
        AND claim_id <> ALL(%(running)s::uuid[])
        AND (%(age)s::float IS NULL
            OR started_at < NOW() - %(age)s::float * INTERVAL '1 second')
        RETURNING queue
        """
    )
    await cursor.execute(
        query.format(jobs=_table(worker.chancy, "jobs")),
        {"worker": worker.worker_id, "running": [*running], "age": older_than},
    )
    return sorted({row["queue"] for row in await cursor.fetchall()})


async def postpone(
    app: chancy.Chancy, cursor: AsyncCursor[DictRow], job: QueuedJob
) -> None:
    """Puts a job back for some seconds; no attempt is used up."""
    query = sql.SQL(
        """
        UPDATE {} SET state = 'pending', taken_by = NULL, claim_id = NULL,
            started_at = NULL, scheduled_at = NOW() + INTERVAL '5 seconds'
        WHERE id = %s AND claim_id = %s
        """
    )
    await cursor.execute(query.format(_table(app, "jobs")), [job.id, job.claim_id])


async def capacity(app: chancy.Chancy, queue: Queue, conn: AsyncConnection[Any]) -> int:
    """Returns how many jobs a limited queue may still start in the current window.

    Chancy 0.26 asks the worker's clock, so that replicas whose clocks differ each open
    a window of their own. This asks the server's, with the queue's row locked.

    Raises:
        WorkersError: The queue has a limit and no window.
    """
    if not queue.rate_limit_window:
        raise WorkersError(
            f"the queue {queue.name} has a rate_limit and no rate_limit_window: declare "
            "it with both, or with neither"
        )
    limits = _table(app, "queue_rate_limits")
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
                SELECT (floor(extract(epoch FROM clock_timestamp()) / %(window)s)
                    * %(window)s)::int AS start
            ) AS now
            WHERE queue = %(queue)s RETURNING count
            """
        ).format(limits),
        {"queue": queue.name, "window": queue.rate_limit_window},
    )
    row = await cursor.fetchone()
    assert row and queue.rate_limit is not None
    started: int = row[0]
    return queue.rate_limit - started


async def use_capacity(
    app: chancy.Chancy, queue: Queue, conn: AsyncConnection[Any], count: int
) -> None:
    """Counts started jobs towards the current window of a limited queue."""
    await conn.execute(
        sql.SQL("UPDATE {} SET count = count + %s WHERE queue = %s").format(
            _table(app, "queue_rate_limits")
        ),
        [count, queue.name],
    )


async def fail_unreadable(
    app: chancy.Chancy, queue: Queue, conn: AsyncConnection[Any]
) -> None:
    """Fails the due jobs of a queue whose rows no worker can read.

    Chancy 0.26 ends the queue's task at such a row, and again at each start.
    """
    jobs = _table(app, "jobs")
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            sql.SQL(
                "SELECT * FROM {} WHERE queue = %s AND state IN ('pending', 'retrying') "
                "AND scheduled_at <= NOW() FOR UPDATE SKIP LOCKED"
            ).format(jobs),
            [queue.name],
        )
        for row in await cursor.fetchall():
            try:
                QueuedJob.unpack(row)
            except (KeyError, TypeError, ValueError) as error:
                reason = f"the row cannot be read: {type(error).__name__}: {error}"
                app.log.error(
                    "failed the job %s (%s): %s", row["id"], row["func"], reason
                )
                await conn.execute(
                    sql.SQL(
                        "UPDATE {} SET state = 'failed', completed_at = NOW(), "
                        "errors = errors || %s::jsonb WHERE id = %s"
                    ).format(jobs),
                    [
                        Json([{"traceback": reason, "attempt": row["attempts"]}]),
                        row["id"],
                    ],
                )


def storable(update: QueuedJob) -> QueuedJob:
    """Returns the update with texts that PostgreSQL can store.

    In Chancy 0.26, one NUL or lone surrogate in the text of an exception ends the
    saving of all results.
    """
    return dataclasses.replace(
        update, errors=_cleaned(update.errors), meta=_cleaned(update.meta)
    )


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("\0", "\\0").encode(errors="backslashreplace").decode()
    if isinstance(value, dict):
        return {_cleaned(str(key)): _cleaned(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set):
        return [_cleaned(each) for each in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return _cleaned(json.loads(json.dumps(value, default=str)))
