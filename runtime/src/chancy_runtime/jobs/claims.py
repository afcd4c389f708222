"""Takes jobs from their queues, and gives them back."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from uuid import UUID

from chancy import Queue, QueuedJob
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import DictRow
from psycopg.types.json import Json

from . import chancy_rate_limit
from chancy_runtime.jobs.rows import UNREADABLE, as_running_job, statement

if TYPE_CHECKING:
    from chancy_runtime.worker import Worker

# Which jobs are next is Chancy's choice, to the letter.
_TAKE = """
WITH selected AS (
    SELECT id FROM {jobs}
    WHERE queue = %(queue)s AND (state = 'pending' OR state = 'retrying')
        AND attempts < max_attempts AND (scheduled_at IS NULL OR scheduled_at <= NOW())
    ORDER BY priority DESC, id ASC
    LIMIT %(up_to)s FOR UPDATE OF {jobs} SKIP LOCKED
)
UPDATE {jobs} j SET started_at = NOW(), state = 'running',
    claim_id = gen_random_uuid(), taken_by = %(worker)s
FROM selected WHERE j.id = selected.id RETURNING {columns}
"""
_UNHEARD_OF = """
SELECT id, func, attempts FROM {jobs}
WHERE queue = %(queue)s AND state = 'running' AND taken_by = %(worker)s
    AND claim_id <> ALL(%(running)s::uuid[])
"""
_GIVE_BACK = """
UPDATE {jobs} SET state = 'pending', taken_by = NULL, claim_id = NULL, started_at = NULL
WHERE state = 'running' AND taken_by = %(worker)s
    AND claim_id <> ALL(%(running)s::uuid[])
    AND (%(age)s::float IS NULL
        OR started_at < NOW() - %(age)s::float * INTERVAL '1 second')
RETURNING queue
"""
_POSTPONE = """
UPDATE {jobs} SET state = 'pending', taken_by = NULL, claim_id = NULL, started_at = NULL,
    scheduled_at = NOW() + INTERVAL '5 seconds'
WHERE id = %s AND claim_id = %s
"""
_READ = "SELECT {columns} FROM {jobs} j WHERE id = %(id)s"
_FAIL = """
UPDATE {jobs} SET state = 'failed', completed_at = NOW(), errors = errors || %(error)s::jsonb
WHERE id = %(id)s
"""


async def fetch(
    worker: "Worker", queue: Queue, connection: AsyncConnection[Any], *, up_to: int
) -> list[QueuedJob]:
    """Takes jobs as Chancy's Worker.fetch_jobs() does, on the clock of the server.

    Args:
        connection: In autocommit mode, so that one round trip is enough.
        up_to: How many jobs; less where the queue's rate limit says so.
    """
    if queue.rate_limit is None:
        return await _take_readable(worker, queue, connection, up_to)
    async with connection.transaction():
        free = await chancy_rate_limit.capacity(worker.chancy, queue, connection)
        if (up_to := min(up_to, free)) <= 0:
            return []
        jobs = await _take_readable(worker, queue, connection, up_to)
        await chancy_rate_limit.use_capacity(
            worker.chancy, queue, connection, len(jobs)
        )
        return jobs


async def _take_readable(
    worker: "Worker", queue: Queue, connection: AsyncConnection[Any], up_to: int
) -> list[QueuedJob]:
    try:
        return await take(worker, queue, connection, up_to=up_to)
    except UNREADABLE:
        worker.queue_wake_events[queue.name].set()
        jobs = await _sort_out(worker, queue, connection)
        if jobs is None:
            raise
        return jobs


async def take(
    worker: "Worker", queue: Queue, connection: AsyncConnection[Any], *, up_to: int
) -> list[QueuedJob]:
    """Marks the next jobs of a queue as running here, and returns them.

    Raises:
        psycopg.DataError, ValueError, …: One of UNREADABLE, for a row among them; all
            of them are taken all the same.
    """
    async with connection.cursor(row_factory=as_running_job) as cursor:
        await cursor.execute(
            statement(_TAKE, worker.chancy.prefix),
            {"queue": queue.name, "up_to": up_to, "worker": worker.worker_id},
            prepare=True,
        )
        return await cursor.fetchall()


async def _sort_out(
    worker: "Worker", queue: Queue, connection: AsyncConnection[Any]
) -> list[QueuedJob] | None:
    """Returns what take() took although a row could not be read; such rows fail.

    Chancy 0.26 ends the queue's task at such a row, and again at each start.

    Returns:
        The jobs that can be read, or None when nothing was taken.
    """
    prefix, log, jobs = worker.chancy.prefix, worker.chancy.log, []
    taken = await connection.execute(
        statement(_UNHEARD_OF, prefix),
        {"queue": queue.name, "worker": worker.worker_id, "running": worker.claims()},
    )
    for id, func, attempts in await taken.fetchall():
        async with connection.cursor(row_factory=as_running_job) as cursor:
            await cursor.execute(statement(_READ, prefix), {"id": id})
            try:
                jobs += await cursor.fetchall()
            except UNREADABLE as error:
                reason = f"the row cannot be read: {type(error).__name__}: {error}"
                log.error("failed the job %s (%s): %s", id, func, reason)
                said = Json([{"traceback": reason, "attempt": attempts}])
                await cursor.execute(
                    statement(_FAIL, prefix), {"id": id, "error": said}
                )
    return jobs if taken.rowcount else None


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
    await cursor.execute(
        statement(_GIVE_BACK, worker.chancy.prefix),
        {"worker": worker.worker_id, "running": [*running], "age": older_than},
    )
    return sorted({row["queue"] for row in await cursor.fetchall()})


async def postpone(
    cursor: AsyncCursor[DictRow], job: QueuedJob, *, prefix: str
) -> None:
    """Puts a job back for some seconds; no attempt is used up."""
    await cursor.execute(statement(_POSTPONE, prefix), [job.id, job.claim_id])
