"""Saves the results of jobs, a batch in one statement."""

import functools
import json
from typing import Any

import chancy
from chancy import QueuedJob
from chancy.utils import lock_order_key
from psycopg import AsyncCursor, sql
from psycopg.rows import DictRow
from psycopg.types.json import Json

_SAVE = """
WITH new AS (
    SELECT * FROM json_to_recordset(%s) AS _ (
        lock_order int, position int, id uuid, claim_id uuid, state text,
        started_at timestamptz, completed_at timestamptz, scheduled_at timestamptz,
        attempts int, max_attempts int, errors jsonb, meta jsonb
    )
), claimed AS (
    SELECT j.id FROM {jobs} j JOIN new ON new.id = j.id
    WHERE j.claim_id IS NOT DISTINCT FROM new.claim_id
    ORDER BY new.lock_order FOR NO KEY UPDATE OF j
)
UPDATE {jobs} j SET state = new.state, started_at = new.started_at,
    completed_at = new.completed_at, scheduled_at = new.scheduled_at,
    attempts = new.attempts, max_attempts = new.max_attempts,
    errors = new.errors, meta = new.meta
FROM claimed JOIN new ON new.id = claimed.id
WHERE j.id = claimed.id RETURNING new.position
"""
_dump = functools.partial(json.dumps, default=str)


async def save(
    app: chancy.Chancy, updates: list[QueuedJob], cursor: AsyncCursor[DictRow]
) -> tuple[QueuedJob, ...]:
    """Writes a batch of results; returns those whose claim still holds, in their order.

    Chancy 0.26 sends a statement for each. This locks the rows in the same order, that
    of Chancy's pushes, so that neither waits for the other in a circle.
    """
    waiting = sorted(
        enumerate(updates),
        key=lambda item: (lock_order_key(item[1].unique_key), item[1].id),
    )
    saved: set[int] = set()
    while waiting:
        # One statement changes a row once: a second result of a job takes another.
        batch = {update.id: position for position, update in reversed(waiting)}
        now = [item for item in waiting if batch[item[1].id] == item[0]]
        waiting = [item for item in waiting if batch[item[1].id] != item[0]]
        values = [_values(order, *item) for order, item in enumerate(now)]
        await cursor.execute(
            sql.SQL(_SAVE).format(jobs=sql.Identifier(f"{app.prefix}jobs")),
            [Json(values, _dump)],
        )
        saved.update(row["position"] for row in await cursor.fetchall())
    return tuple(update for i, update in enumerate(updates) if i in saved)


def _values(lock_order: int, position: int, update: QueuedJob) -> dict[str, Any]:
    return {
        "lock_order": lock_order,
        "position": position,
        "id": update.id,
        "claim_id": update.claim_id,
        "state": update.state.value,
        "started_at": update.started_at,
        "completed_at": update.completed_at,
        "scheduled_at": update.scheduled_at,
        "attempts": update.attempts,
        "max_attempts": update.max_attempts,
        "errors": update.errors,
        "meta": update.meta,
    }
