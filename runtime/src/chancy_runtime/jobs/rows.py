"""Creates jobs from rows, and changed copies of jobs."""

import functools
import json
from collections.abc import Callable, Sequence
from typing import Any, LiteralString

import psycopg
from chancy import QueuedJob
from chancy.job import Limit
from psycopg import sql

from chancy_runtime.compat import ATTRIBUTES_OF_A_RUN
from chancy_runtime.postgres.claim_indexes import (
    FROM_A_LATER_TIME,
    FROM_THE_PUSH,
    WAITS,
)

# Errors of a row with values that Python cannot represent or that Chancy never writes.
UNREADABLE = (
    psycopg.DataError,
    AttributeError,
    KeyError,
    RecursionError,
    TypeError,
    ValueError,
)
_PLAIN = (
    *("id", "claim_id", "queue", "func", "priority", "attempts", "max_attempts"),
    *("created_at", "scheduled_at", "started_at", "completed_at", "unique_key"),
)
# Read as text: most are empty, and a comparison is cheaper than parsing.
_JSON = ("kwargs", "limits", "meta", "errors")
_COLUMNS = sql.SQL(", ").join(
    [
        *(sql.SQL("j.{}").format(sql.Identifier(name)) for name in _PLAIN),
        *(sql.SQL("j.{}::text").format(sql.Identifier(name)) for name in _JSON),
    ]
)


_TABLES = ("jobs", "queues", "workers", "leader", "cron", "dashboard_sessions")


@functools.cache
def statement(text: LiteralString, prefix: str) -> bytes:
    """Returns an SQL statement with its names in braces filled in; results are cached.

    Args:
        prefix: The prefix of the service's tables.
    """
    names = {
        **{name: sql.Identifier(f"{prefix}{name}") for name in _TABLES},
        "columns": _COLUMNS,
        "waits": sql.SQL(WAITS),
        "from_the_push": sql.SQL(FROM_THE_PUSH),
        "from_a_later_time": sql.SQL(FROM_A_LATER_TIME),
    }
    return sql.SQL(text).format(**names).as_bytes()


def as_running_job(_cursor: object) -> Callable[[Sequence[Any]], QueuedJob]:
    """The psycopg row factory of {columns}, for jobs that have just been taken.

    QueuedJob.unpack() takes five times as long, during which it blocks the event loop.

    Raises:
        psycopg.DataError, ValueError, …: One of UNREADABLE, when a row is read.
    """
    return _running_job


def _running_job(values: Sequence[Any]) -> QueuedJob:
    *plain, kwargs, limits, meta, errors = values
    return _made(
        zip(_PLAIN, plain, strict=True),
        state=QueuedJob.State.RUNNING,
        kwargs={} if kwargs == "{}" else json.loads(kwargs),
        limits=[]
        if limits == "[]"
        else [*map(Limit.deserialize, _loads("limits", limits, list))],
        meta={} if meta == "{}" else _loads("meta", meta, dict),
        errors=[] if errors == "[]" else _loads("errors", errors, list),
        **ATTRIBUTES_OF_A_RUN,
    )


def _loads(name: str, text: str, kind: type) -> Any:
    """Parses a column and checks the type that Chancy and its plugins assume.

    JSON null counts as empty.
    """
    if (value := json.loads(text)) is None:
        return kind()
    if not isinstance(value, kind):
        # Without the value, which must not be logged: it may be a secret.
        raise TypeError(f"{name} is a {type(value).__name__}, not a {kind.__name__}")
    return value


def changed(job: QueuedJob, **changes: Any) -> QueuedJob:
    """Does what dataclasses.replace() does, in a fifth of its time."""
    return _made(vars(job), **changes)


def _made(values: Any, **others: Any) -> QueuedJob:
    job = object.__new__(QueuedJob)
    vars(job).update(values, **others)
    return job
