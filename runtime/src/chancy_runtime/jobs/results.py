"""Saves the results of jobs, each batch in one statement."""

import json
import math
from collections.abc import Iterable
from typing import Any

from chancy import QueuedJob
from chancy.utils import lock_order_key
from psycopg import AsyncCursor
from psycopg.rows import DictRow

from chancy_runtime.jobs.rows import changed, statement

_LONGEST_TEXT = 100_000
# In bits. Python refuses to write out much longer integers (4,300 digits).
_LONGEST_INTEGER = 10_000
# Arrays in the binary format take a fifth of the time of JSON, on both sides.
_SAVE = """
WITH new AS (
    SELECT * FROM unnest(
        %b::uuid[], %b::uuid[], %b::text[], %b::text[], %b::text[], %b::text[],
        %b::int[], %b::int[], %b::text[], %b::text[]
    ) WITH ORDINALITY AS _ (
        id, claim_id, state, started_at, completed_at, scheduled_at,
        attempts, max_attempts, errors, meta, position
    )
), claimed AS (
    SELECT new.* FROM new JOIN {jobs} j ON j.id = new.id
    WHERE j.claim_id IS NOT DISTINCT FROM new.claim_id
    ORDER BY new.position FOR NO KEY UPDATE OF j
)
UPDATE {jobs} j SET state = new.state,
    started_at = new.started_at::timestamptz,
    completed_at = new.completed_at::timestamptz,
    scheduled_at = new.scheduled_at::timestamptz,
    attempts = new.attempts, max_attempts = new.max_attempts,
    errors = new.errors::jsonb, meta = new.meta::jsonb
FROM claimed new WHERE j.id = new.id RETURNING new.position
"""


async def save(
    prefix: str, updates: list[QueuedJob], cursor: AsyncCursor[DictRow]
) -> tuple[QueuedJob, ...]:
    """Writes a batch of results; returns, in order, those whose claim was still valid.

    Chancy 0.26 sends a statement for each result. Rows are locked in the order of Chancy's
    pushes, so that the two cannot deadlock.
    """
    waiting = sorted(
        enumerate(updates),
        key=lambda item: (lock_order_key(item[1].unique_key), item[1].id.int),
    )
    saved: set[int] = set()
    while waiting:
        # A statement changes a row only once: a second result of a job needs another one.
        now: list[tuple[int, QueuedJob]] = []
        later: list[tuple[int, QueuedJob]] = []
        for item in waiting:
            again = now and now[-1][1].id.int == item[1].id.int
            (later if again else now).append(item)
        waiting = later
        await cursor.execute(
            statement(_SAVE, prefix), _columns(update for _, update in now)
        )
        saved.update(now[row["position"] - 1][0] for row in await cursor.fetchall())
    return tuple(update for i, update in enumerate(updates) if i in saved)


def _columns(updates: Iterable[QueuedJob]) -> list[list[Any]]:
    """Returns a column of values for each parameter of _SAVE."""
    rows = (
        (
            update.id,
            update.claim_id,
            update.state.value,
            # As text, because times from plugins may have a zone or not.
            update.started_at and str(update.started_at),
            update.completed_at and str(update.completed_at),
            update.scheduled_at and str(update.scheduled_at),
            update.attempts,
            update.max_attempts,
            json.dumps(update.errors, default=str) if update.errors else "[]",
            json.dumps(update.meta, default=str) if update.meta else "{}",
        )
        for update in updates
    )
    return [list(column) for column in zip(*rows, strict=True)]


def storable(update: QueuedJob) -> QueuedJob:
    """Returns the update with errors and meta that PostgreSQL can store.

    In Chancy 0.26, a NUL or a lone surrogate in the text of an exception, or a value in meta
    that is not JSON, stops the saving of all results.
    """
    return changed(
        update, errors=_storable(update.errors, []), meta=_storable(update.meta, {})
    )


def _storable(value: Any, otherwise: Any) -> Any:
    try:
        return _cleaned(value)
    except Exception:  # noqa: BLE001  # recursive values, or methods that raise
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
