"""Takes jobs from their queues, and gives them back."""

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from chancy import Queue, QueuedJob
from psycopg import AsyncConnection, AsyncCursor
from psycopg.rows import DictRow
from psycopg.types.json import Json

from chancy_runtime.jobs import rate_limit
from chancy_runtime.jobs.rows import UNREADABLE, as_running_job, statement
from chancy_runtime.postgres.claim_indexes import are_built
from chancy_runtime.postgres.connections import in_one_transaction

# Selects the next jobs exactly as Chancy does. It reads all waiting jobs.
_TAKE = """
WITH selected AS (
    SELECT id FROM {jobs}
    WHERE queue = %(queue)s AND (state = 'pending' OR state = 'retrying')
        AND attempts < max_attempts AND (scheduled_at IS NULL OR scheduled_at <= NOW())
    ORDER BY priority DESC, id ASC
    LIMIT %(up_to)s FOR UPDATE OF {jobs} SKIP LOCKED
)
UPDATE {jobs} j SET started_at = COALESCE(%(now)s::timestamptz, clock_timestamp()), state = 'running',
    claim_id = gen_random_uuid(), taken_by = %(worker)s
FROM selected WHERE j.id = selected.id RETURNING {columns}
"""
# Selects the same jobs with the library's indexes; it reads about as many rows as it takes.
# Jobs that fell due after their push have to be sorted, so this sorts _SORTED of them: those
# of the highest priorities that fell due first. Beyond these, jobs come in the order in which
# they fell due. Like Chancy's statement, it skips jobs that another worker has locked or
# taken. The check of a locked row is one condition: PostgreSQL must not use an index for it.
_SORTED = 1000
_TAKE_BY_INDEX = """
WITH RECURSIVE priorities (priority) AS (
    (
        SELECT priority FROM {jobs} WHERE queue = %(queue)s AND {from_a_later_time}
        ORDER BY priority DESC LIMIT 1
    )
    UNION ALL
    SELECT lower.priority FROM priorities p CROSS JOIN LATERAL (
        SELECT priority FROM {jobs}
        WHERE queue = %(queue)s AND {from_a_later_time} AND priority < p.priority
        ORDER BY priority DESC LIMIT 1
    ) AS lower
), fallen_due AS (
    SELECT due.id, p.priority FROM priorities p CROSS JOIN LATERAL (
        SELECT id FROM {jobs} WHERE queue = %(queue)s AND {from_a_later_time}
            AND priority = p.priority AND scheduled_at <= NOW()
        ORDER BY scheduled_at, id
    ) AS due
), next AS (
    SELECT id FROM (
        (
            SELECT id, priority FROM {jobs}
            WHERE queue = %(queue)s AND {from_the_push} AND scheduled_at <= NOW()
            ORDER BY priority DESC, id
        )
        UNION ALL
        (
            SELECT id, priority FROM (
                SELECT id, priority FROM fallen_due LIMIT %(sorted)s
            ) AS first
            ORDER BY priority DESC, id
        )
        ORDER BY priority DESC, id
    ) AS in_order
    UNION ALL
    (SELECT id FROM fallen_due OFFSET %(sorted)s)
), selected AS MATERIALIZED (
    SELECT locked.id FROM next CROSS JOIN LATERAL (
        SELECT id FROM {jobs} j WHERE j.id = next.id
            AND (queue = %(queue)s AND {waits} AND scheduled_at <= NOW()) IS TRUE
        FOR UPDATE SKIP LOCKED
    ) AS locked
    LIMIT %(up_to)s
), taken AS (
    UPDATE {jobs} j SET started_at = COALESCE(%(now)s::timestamptz, clock_timestamp()),
        state = 'running', claim_id = gen_random_uuid(), taken_by = %(worker)s
    WHERE j.id = ANY(ARRAY(SELECT id FROM selected)) RETURNING {columns}
)
SELECT * FROM taken ORDER BY priority DESC, id
"""
# One plan is right for all data, but the planner uses statistics. If these are from an hour
# ago, when the table was empty, it would read and sort the whole table.
PLAN = """
SELECT set_config(name, 'off', true) FROM unnest('{enable_seqscan, enable_bitmapscan,
    enable_sort, enable_hashjoin, enable_mergejoin, jit}'::text[]) AS name
UNION ALL SELECT set_config('plan_cache_mode', 'force_generic_plan', true)
"""
_TAKEN = """
SELECT id, func, attempts FROM {jobs}
WHERE queue = %(queue)s AND state = 'running' AND taken_by = %(worker)s
    AND claim_id <> ALL(%(running)s::uuid[])
"""
_GIVE_BACK = """
UPDATE {jobs} SET state = 'pending', taken_by = NULL, claim_id = NULL, started_at = NULL
WHERE queue = ANY(%(queues)s) AND state = 'running' AND taken_by = %(worker)s
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


@dataclass(kw_only=True)
class Claims:
    """The claims of a Worker: takes jobs from their queues and gives them back.

    Args:
        prefix: The prefix of the service's tables.
        worker_id: The id of the Worker that takes the jobs.
        log: The log for jobs that cannot be read.
        held: Returns the claims of the jobs that run in the Worker or whose results are
            not saved yet.
        wake: Called with the name of a queue that may have more jobs than were taken.
    """

    prefix: str
    worker_id: str
    log: logging.Logger
    held: Callable[[], list[UUID | None]]
    wake: Callable[[str], None]
    _has_indexes: bool | None = field(default=None, init=False)
    _fetched_from: set[str] = field(default_factory=set, init=False)

    async def fetch(
        self, queue: Queue, connection: AsyncConnection[Any], *, up_to: int
    ) -> list[QueuedJob]:
        """Takes jobs like Chancy's Worker.fetch_jobs(), but uses the server's clock.

        It checks once whether the tables have the library's indexes. Without them claims
        work, but read all waiting jobs.

        Args:
            connection: A connection in autocommit mode, so that one round trip is enough.
            up_to: The number of jobs; the queue's rate limit may allow fewer.

        Raises:
            psycopg.DataError, ValueError, …: One of UNREADABLE, and nothing was taken.
        """
        if self._has_indexes is None:
            self._has_indexes = await are_built(connection, self.prefix)
        self._fetched_from.add(queue.name)
        if queue.rate_limit is None:
            return await self._take_readable(queue, connection, up_to)
        async with connection.transaction():
            free, now = await rate_limit.capacity(self.prefix, queue, connection)
            if (up_to := min(up_to, free)) <= 0:
                return []
            jobs = await self._take_readable(queue, connection, up_to, now)
            await rate_limit.use_capacity(self.prefix, queue, connection, len(jobs))
            return jobs

    async def _take_readable(
        self,
        queue: Queue,
        connection: AsyncConnection[Any],
        up_to: int,
        now: datetime | None = None,
    ) -> list[QueuedJob]:
        try:
            return await self._take(queue, connection, up_to, now)
        except UNREADABLE:
            self.wake(queue.name)
            jobs = await self._sort_out(queue, connection)
            if jobs is None:
                raise
            return jobs

    async def _take(
        self,
        queue: Queue,
        connection: AsyncConnection[Any],
        up_to: int,
        now: datetime | None,
    ) -> list[QueuedJob]:
        """Marks the next jobs of a queue as running here, and returns them.

        Args:
            now: The start time of the jobs, which decides the window of a rate limit. Default:
                the time at which a job's row is taken.

        Raises:
            psycopg.DataError, ValueError, …: One of UNREADABLE, for one of the rows. All of
                them have been taken in spite of it.
        """
        values = {
            "queue": queue.name,
            "up_to": up_to,
            "worker": self.worker_id,
            "now": now,
            "sorted": _SORTED,
        }
        async with connection.cursor(row_factory=as_running_job) as cursor:
            if self._has_indexes:
                async with in_one_transaction(connection):
                    await connection.execute(PLAN, prepare=True)
                    await cursor.execute(
                        statement(_TAKE_BY_INDEX, self.prefix), values, prepare=True
                    )
            else:
                await cursor.execute(
                    statement(_TAKE, self.prefix), values, prepare=True
                )
            return await cursor.fetchall()

    async def _sort_out(
        self, queue: Queue, connection: AsyncConnection[Any]
    ) -> list[QueuedJob] | None:
        """Returns the readable jobs that _take() took, and fails the unreadable ones.

        In Chancy 0.26 an unreadable row ends the queue's task, and does so at each start.

        Returns:
            The jobs that can be read, or None when nothing was taken.
        """
        jobs: list[QueuedJob] = []
        taken = await connection.execute(
            statement(_TAKEN, self.prefix),
            {"queue": queue.name, "worker": self.worker_id, "running": self.held()},
        )
        for id, func, attempts in await taken.fetchall():
            async with connection.cursor(row_factory=as_running_job) as cursor:
                await cursor.execute(statement(_READ, self.prefix), {"id": id})
                try:
                    jobs += await cursor.fetchall()
                except UNREADABLE as error:
                    reason = f"the row cannot be read: {type(error).__name__}: {error}"
                    self.log.error("failed the job %s (%s): %s", id, func, reason)
                    written = Json([{"traceback": reason, "attempt": attempts}])
                    await cursor.execute(
                        statement(_FAIL, self.prefix), {"id": id, "error": written}
                    )
        return jobs if taken.rowcount else None

    async def give_back(
        self,
        cursor: AsyncCursor[DictRow],
        *,
        running: Iterable[UUID | None] = (),
        older_than: float | None = None,
    ) -> list[str]:
        """Puts jobs back into their queues that the Worker took but does not run.

        At its stop these are the jobs that did not end within the grace; after a lost
        connection, the jobs of a claim that got no answer. No attempt is used up.

        Args:
            running: The claims of the jobs that it runs.
            older_than: Only jobs that were taken at least this number of seconds before
                the transaction; None for all of them.

        Returns:
            The names of their queues.
        """
        await cursor.execute(
            statement(_GIVE_BACK, self.prefix),
            {
                "queues": [*self._fetched_from],
                "worker": self.worker_id,
                "running": [*running],
                "age": older_than,
            },
        )
        return sorted({row["queue"] for row in await cursor.fetchall()})

    async def postpone(self, cursor: AsyncCursor[DictRow], job: QueuedJob) -> None:
        """Puts a job back for five seconds; no attempt is used up."""
        await cursor.execute(statement(_POSTPONE, self.prefix), [job.id, job.claim_id])
