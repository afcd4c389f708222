"""Counts the waiting jobs of each queue, and how long they wait, at a bounded cost."""

from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection

from chancy_runtime.jobs.claims import PLAN
from chancy_runtime.jobs.rows import statement
from chancy_runtime.postgres.claim_indexes import are_built

# The most jobs and priorities that are read for each queue, and the most queues.
MOST = 10_000
_MOST_PRIORITIES = 100
_MOST_QUEUES = 200
# Like a claim, it reads two kinds of jobs: those that could run from their push on, of which
# the first id of a priority is the oldest, and those that fall due later. It finds each queue
# and each priority in one step. Each subquery has a limit, because PostgreSQL could join them
# in another order without it.
_DEPTHS = """
WITH RECURSIVE pushed (queue) AS (
    (SELECT queue FROM {jobs} WHERE {from_the_push} ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT next.queue FROM pushed CROSS JOIN LATERAL (
        SELECT queue FROM {jobs} WHERE {from_the_push} AND queue > pushed.queue
        ORDER BY queue LIMIT 1
    ) AS next
), postponed (queue) AS (
    (SELECT queue FROM {jobs} WHERE {from_a_later_time} ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT next.queue FROM postponed CROSS JOIN LATERAL (
        SELECT queue FROM {jobs} WHERE {from_a_later_time} AND queue > postponed.queue
        ORDER BY queue LIMIT 1
    ) AS next
), names (name) AS (
    (SELECT name FROM {queues} ORDER BY name LIMIT %(most_queues)s)
    UNION (SELECT queue FROM pushed LIMIT %(most_queues)s)
    UNION (SELECT queue FROM postponed LIMIT %(most_queues)s)
)
SELECT name, least(now.jobs + later.due, %(most)s), later.scheduled,
    COALESCE(EXTRACT(epoch FROM NOW() - least(oldest.since, later.since)), 0)::float
FROM names
CROSS JOIN LATERAL (
    SELECT count(*) AS jobs FROM (
        SELECT FROM {jobs} WHERE queue = name AND {from_the_push} LIMIT %(most)s
    ) AS _
) AS now
CROSS JOIN LATERAL (
    WITH RECURSIVE found (priority) AS (
        (
            SELECT priority FROM {jobs}
            WHERE queue = name AND {from_the_push} AND priority IS NOT NULL
            ORDER BY priority DESC LIMIT 1
        )
        UNION ALL
        SELECT lower.priority FROM found CROSS JOIN LATERAL (
            SELECT priority FROM {jobs}
            WHERE queue = name AND {from_the_push} AND priority < found.priority
            ORDER BY priority DESC LIMIT 1
        ) AS lower
    )
    SELECT min(first.created_at) AS since
    FROM (SELECT priority FROM found LIMIT %(most_priorities)s) AS p
    CROSS JOIN LATERAL (
        SELECT created_at FROM {jobs}
        WHERE queue = name AND {from_the_push} AND priority = p.priority
        ORDER BY id LIMIT 1
    ) AS first
) AS oldest
CROSS JOIN LATERAL (
    WITH RECURSIVE found (priority) AS (
        (
            SELECT priority FROM {jobs} WHERE queue = name AND {from_a_later_time}
            ORDER BY priority DESC LIMIT 1
        )
        UNION ALL
        SELECT lower.priority FROM found CROSS JOIN LATERAL (
            SELECT priority FROM {jobs}
            WHERE queue = name AND {from_a_later_time} AND priority < found.priority
            ORDER BY priority DESC LIMIT 1
        ) AS lower
    ), priorities AS MATERIALIZED (
        SELECT priority FROM found LIMIT %(most_priorities)s
    )
    SELECT (
        SELECT count(*) FROM (
            SELECT FROM priorities p CROSS JOIN LATERAL (
                SELECT FROM {jobs} WHERE queue = name AND {from_a_later_time}
                    AND priority = p.priority AND scheduled_at <= NOW()
                LIMIT %(most)s
            ) AS _
            LIMIT %(most)s
        ) AS _
    ) AS due, (
        SELECT count(*) FROM (
            SELECT FROM priorities p CROSS JOIN LATERAL (
                SELECT FROM {jobs} WHERE queue = name AND {from_a_later_time}
                    AND priority = p.priority AND scheduled_at > NOW()
                LIMIT %(most)s
            ) AS _
            LIMIT %(most)s
        ) AS _
    ) AS scheduled, (
        SELECT min(first.scheduled_at) FROM priorities p CROSS JOIN LATERAL (
            SELECT scheduled_at FROM {jobs} WHERE queue = name AND {from_a_later_time}
                AND priority = p.priority AND scheduled_at <= NOW()
            ORDER BY scheduled_at LIMIT 1
        ) AS first
    ) AS since
) AS later
ORDER BY name
"""


@dataclass(frozen=True)
class Depth:
    """The waiting jobs of a queue.

    Args:
        queue: The name of the queue, even if it is not declared.
        due: How many jobs could run now; MOST means that many or more.
        scheduled: How many jobs wait for a later time, or for another attempt; MOST means
            that many or more.
        oldest: Seconds since the first of the due jobs could run.
    """

    queue: str
    due: int
    scheduled: int
    oldest: float


async def read_depths(
    connection: AsyncConnection[Any], prefix: str, *, most_queues: int = _MOST_QUEUES
) -> list[Depth] | None:
    """Counts the waiting jobs of each queue; the cost is bounded, however many there are.

    Args:
        most_queues: How many queues are read, in the order of their names.

    Returns:
        None without the library's indexes: it would read all waiting jobs.
    """
    if not await are_built(connection, prefix):
        return None
    values = {
        "most": MOST,
        "most_priorities": _MOST_PRIORITIES,
        "most_queues": most_queues,
    }
    async with connection.transaction(), connection.cursor() as cursor:
        await cursor.execute(PLAN)
        await cursor.execute(statement(_DEPTHS, prefix), values)
        return [Depth(*row) for row in await cursor.fetchall()]
