"""What a Worker does to the rows of jobs, beyond what Chancy does."""

import dataclasses
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from uuid import UUID

import chancy
import psycopg
from chancy import Queue, QueuedJob
from psycopg import AsyncConnection, AsyncCursor, sql
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Json

if TYPE_CHECKING:
    from .chancy_worker import Worker

# What reading a row raises whose values are none of Python's, or not what Chancy wrote.
UNREADABLE = (
    psycopg.DataError,
    AttributeError,
    KeyError,
    RecursionError,
    TypeError,
    ValueError,
)
_LONGEST_TEXT = 100_000
# Python itself does not write out much longer ones (4,300 digits).
_LONGEST_INTEGER = 10_000


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
    """
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


def check_readable(job: QueuedJob) -> None:
    """Makes sure that a job's row has what Chancy and its plugins take for granted.

    Raises:
        TypeError: It has not.
    """
    for column, kind in (("errors", list), ("meta", dict)):
        if not isinstance(value := getattr(job, column), kind):
            raise TypeError(f"{column} is {value!r:.50}, not a {kind.__name__}")


def readable(job: QueuedJob) -> QueuedJob:
    """Returns the job with what check_readable() wants, so that it can fail."""
    return dataclasses.replace(
        job,
        errors=job.errors if isinstance(job.errors, list) else [],
        meta=job.meta if isinstance(job.meta, dict) else {},
    )


async def fail_unreadable(
    app: chancy.Chancy, queue: Queue, conn: AsyncConnection[Any], *, up_to: int
) -> int:
    """Fails the next jobs of a queue whose rows no worker can read; returns how many.

    Chancy 0.26 ends the queue's task at such a row, and again at each start.

    Args:
        up_to: How many jobs the worker wanted to take.
    """
    jobs = _table(app, "jobs")
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(
            sql.SQL(
                "SELECT id, func, attempts FROM {} WHERE queue = %s "
                "AND state IN ('pending', 'retrying') AND attempts < max_attempts "
                "AND scheduled_at <= NOW() "
                "ORDER BY priority DESC, id LIMIT %s FOR UPDATE SKIP LOCKED"
            ).format(jobs),
            [queue.name, up_to],
        )
        failed = 0
        for row in await cursor.fetchall():
            await cursor.execute(
                sql.SQL("SELECT * FROM {} WHERE id = %s").format(jobs), [row["id"]]
            )
            try:
                QueuedJob.unpack(await cursor.fetchone() or {})
            except UNREADABLE as error:
                failed += 1
                reason = f"the row cannot be read: {type(error).__name__}: {error}"
                app.log.error(
                    "failed the job %s (%s): %s", row["id"], row["func"], reason
                )
                await cursor.execute(
                    sql.SQL(
                        "UPDATE {} SET state = 'failed', completed_at = NOW(), "
                        "errors = errors || %s::jsonb WHERE id = %s"
                    ).format(jobs),
                    [
                        Json([{"traceback": reason, "attempt": row["attempts"]}]),
                        row["id"],
                    ],
                )
        return failed


def storable(update: QueuedJob) -> QueuedJob:
    """Returns the update with errors and meta that PostgreSQL can store.

    In Chancy 0.26, one NUL or lone surrogate in the text of an exception, or one value
    in meta that is not JSON, ends the saving of all results.
    """
    return dataclasses.replace(
        update, errors=_storable(update.errors, []), meta=_storable(update.meta, {})
    )


def _storable(value: Any, otherwise: Any) -> Any:
    try:
        return _cleaned(value)
    except Exception:  # noqa: BLE001  # it contains itself, or its methods raise
        return otherwise


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return _cleaned_text(value)
    if isinstance(value, dict):
        return {_cleaned(str(key)): _cleaned(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_cleaned(each) for each in value]
    if isinstance(value, int) and value.bit_length() > _LONGEST_INTEGER:
        return hex(value)
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    return _cleaned_text(str(value))


def _cleaned_text(text: str) -> str:
    if (left_out := len(text) - _LONGEST_TEXT) > 0:
        half = _LONGEST_TEXT // 2
        text = f"{text[:half]}\n… {left_out} characters left out …\n{text[-half:]}"
    return text.replace("\0", "\\0").encode(errors="backslashreplace").decode()
