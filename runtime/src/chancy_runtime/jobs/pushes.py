"""Pushes jobs, each batch in one statement."""

import secrets
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any, LiteralString, TypeAlias
from uuid import UUID

from chancy import Job, Reference
from chancy.job import IsAJob
from chancy.utils import chancy_uuid, lock_order_key
from psycopg import AsyncConnection, AsyncCursor, Connection, Cursor
from psycopg.abc import AdaptContext
from psycopg.adapt import PyFormat, Transformer
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import Json

from chancy_runtime.jobs.rows import statement

AnyJob: TypeAlias = Job | IsAJob[..., Any]
# More jobs, or larger ones, take several statements: the event loop gets its turn in
# between, and PostgreSQL accepts no message above 1 GB.
_MOST_JOBS = 1000
_MOST_CHARACTERS = 4_000_000
# The random bits of Chancy's ids; the bits before them are the time.
_RANDOM_BITS = 62
# A column with the same value for all jobs is sent as that value and an empty array.
_PUSH = """
INSERT INTO {jobs} (id, queue, func, kwargs, limits, meta, priority, max_attempts,
    scheduled_at, unique_key)
SELECT id, COALESCE(queue, %b::text), COALESCE(func, %b::text), kwargs, limits, meta,
    COALESCE(priority, %b::int), COALESCE(max_attempts, %b::int), scheduled_at, unique_key
FROM ROWS FROM (
    unnest(%b::uuid[], %b::text[], %b::text[]),
    jsonb_array_elements(%s::jsonb), jsonb_array_elements(%s::jsonb),
    jsonb_array_elements(%s::jsonb),
    unnest(%b::int[], %b::int[], %b::timestamptz[], %b::text[])
) WITH ORDINALITY AS _ (
    id, queue, func, kwargs, limits, meta, priority, max_attempts,
    scheduled_at, unique_key, position
)
ORDER BY position
"""
# Handles a row whose key is in use exactly as Chancy does.
_KEYS: LiteralString = """
ON CONFLICT (unique_key)
WHERE unique_key IS NOT NULL AND state NOT IN ('succeeded', 'failed')
DO UPDATE SET state = {jobs}.state
RETURNING id, unique_key
"""
_PUSH_KEYS = _PUSH + _KEYS
# For drivers other than psycopg: text is the one type that all drivers send the same way.
_PUSH_TEXT = (
    """
INSERT INTO {jobs} (id, queue, func, kwargs, limits, meta, priority, max_attempts,
    scheduled_at, unique_key)
SELECT CAST(job->>'id' AS uuid), job->>'queue', job->>'func', job->'kwargs',
    job->'limits', job->'meta', CAST(job->>'priority' AS int),
    CAST(job->>'max_attempts' AS int), CAST(job->>'scheduled_at' AS timestamptz),
    job->>'unique_key'
FROM jsonb_array_elements(CAST(CAST($1 AS text) AS jsonb))
    WITH ORDINALITY AS _ (job, position)
ORDER BY position
"""
    + _KEYS
)


def fit_one_statement(jobs: list[Job]) -> bool:
    """Whether push() takes these jobs: it is slower than Chancy for a single job."""
    return len(jobs) != 1 and all(map(_is_usual, jobs))


def _is_usual(job: Job) -> bool:
    """Whether the values of a job have the types that Chancy annotates.

    PostgreSQL can convert some others, such as a UUID as the key or a text as the time, if
    each job has its own statement.
    """
    return (
        isinstance(job.queue, str)
        and isinstance(job.func, str)
        and isinstance(job.priority, int)
        and isinstance(job.max_attempts, int)
        and isinstance(job.scheduled_at, datetime)
        and (job.unique_key is None or type(job.unique_key) is str)
    )


def plain(jobs: Sequence[AnyJob]) -> list[Job]:
    """Returns the jobs, with the job in place of each function with @job."""
    return [job if isinstance(job, Job) else job.job for job in jobs]


def cursor_of(own: AsyncConnection[Any] | AsyncCursor[Any]) -> AsyncCursor[DictRow]:
    """Returns a cursor whose rows are dictionaries, which Chancy needs."""
    if isinstance(own, AsyncConnection):
        return own.cursor(row_factory=dict_row)
    return own if own.row_factory is dict_row else cursor_of(own.connection)


def sync_cursor_of(own: Connection[Any] | Cursor[Any]) -> Cursor[DictRow]:
    """Does what cursor_of() does, without asyncio."""
    if isinstance(own, Connection):
        return own.cursor(row_factory=dict_row)
    return own if own.row_factory is dict_row else sync_cursor_of(own.connection)


async def push(
    prefix: str, jobs: list[Job], cursor: AsyncCursor[DictRow]
) -> list[Reference]:
    """Inserts jobs like Chancy.push_many_ex(), without the notification."""
    batch = Batch(jobs)
    for query, columns, has_keys in batch.statements(prefix, cursor):
        await cursor.execute(query, columns)
        if has_keys:
            rows = await cursor.fetchall()
            batch.learn((row["id"], row["unique_key"]) for row in rows)
    return batch.references()


def sync_push(prefix: str, jobs: list[Job], cursor: Cursor[DictRow]) -> list[Reference]:
    """Inserts jobs like Chancy.sync_push_many_ex(), without the notification."""
    batch = Batch(jobs)
    for query, columns, has_keys in batch.statements(prefix, cursor):
        cursor.execute(query, columns)
        if has_keys:
            rows = cursor.fetchall()
            batch.learn((row["id"], row["unique_key"]) for row in rows)
    return batch.references()


class Batch:
    """The rows of a batch of jobs.

    Jobs with the same key have one row, that of the first job: Chancy 0.26 inserts one by
    one, and the later jobs find the row. Rows are in the order of keys, the order in which
    all statements lock rows; ids grow in that order too.
    """

    def __init__(self, jobs: list[Job]) -> None:
        keys = [job.unique_key for job in jobs]
        # The name of each job's row: its key, or its place in the batch if it has no key.
        self._names: list[str | int] = [
            place if key is None else key for place, key in enumerate(keys)
        ]
        ranks = [lock_order_key(key) for key in keys]
        self._rows: dict[str | int, Job] = {}
        for place in sorted(range(len(jobs)), key=ranks.__getitem__):
            self._rows.setdefault(self._names[place], jobs[place])
        ids = _new_ids(len(self._rows))
        self._ids: dict[str | int, UUID] = dict(zip(self._rows, ids, strict=True))

    def statements(
        self, prefix: str, context: AdaptContext | None
    ) -> Iterator[tuple[bytes, list[Any], bool]]:
        """Yields statements, their parameters, and whether learn() needs their rows."""
        to_json = to_json_in(context)
        names = list(self._rows)
        for start in range(0, len(names), _MOST_JOBS):
            for values in self._values(names[start : start + _MOST_JOBS], to_json):
                has_keys = bool(values[-1])
                query = statement(_PUSH_KEYS if has_keys else _PUSH, prefix)
                yield query, values, has_keys

    def _values(
        self, names: list[str | int], to_json: Callable[[Any], str]
    ) -> Iterator[list[Any]]:
        """Yields the parameters of _PUSH, several times if the jobs are large."""
        jobs = [self._rows[name] for name in names]
        kwargs = to_json([job.kwargs or {} for job in jobs])
        meta = to_json([job.meta for job in jobs])
        size = len(kwargs) + len(meta)
        if len(jobs) > 1 and size > _MOST_CHARACTERS:
            step = max(1, len(names) * _MOST_CHARACTERS // size)
            for start in range(0, len(names), step):
                yield from self._values(names[start : start + step], to_json)
            return
        times = [job.scheduled_at for job in jobs]
        # An array cannot mix times with and without a zone.
        has_zones = all(time.tzinfo for time in times)
        keys = [job.unique_key for job in jobs]
        queue, queues = _short([job.queue for job in jobs])
        func, funcs = _short([job.func for job in jobs])
        priority, priorities = _short([int(job.priority) for job in jobs])
        most_attempts, attempts = _short([int(job.max_attempts) for job in jobs])
        yield [
            *(queue, func, priority, most_attempts),
            *([self._ids[name] for name in names], queues, funcs),
            *(kwargs, to_json([_limits(job) for job in jobs]), meta),
            *(priorities, attempts),
            times if has_zones else [str(time) for time in times],
            keys if any(key is not None for key in keys) else [],
        ]

    def texts(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Yields statements with one parameter, $1, and its text.

        Keys must be of the type str.
        """
        query, to_json = statement(_PUSH_TEXT, prefix).decode(), to_json_in(None)
        rows: list[str] = []
        size = 0
        for name, job in self._rows.items():
            row = to_json({"id": str(self._ids[name]), **_values_of(job)})
            if len(rows) == _MOST_JOBS or (rows and size + len(row) > _MOST_CHARACTERS):
                yield query, f"[{','.join(rows)}]"
                rows, size = [], 0
            rows.append(row)
            size += len(row)
        if rows:
            yield query, f"[{','.join(rows)}]"

    def learn(self, rows: Iterable[tuple[UUID, str | None]]) -> None:
        """Takes the ids and keys of rows: a key that was in use has the id of its row."""
        for id, key in rows:
            if key is not None:
                self._ids[key] = id

    def references(self) -> list[Reference]:
        """Returns a reference for each job, in the order of the jobs."""
        return [Reference(self._ids[name]) for name in self._names]


def _new_ids(count: int) -> list[UUID]:
    """Returns ids like those of chancy_uuid(), sorted, in a third of its time."""
    time = chancy_uuid().int >> _RANDOM_BITS << _RANDOM_BITS
    chances = struct.unpack(f"{count}Q", secrets.token_bytes(8 * count))
    spare = 64 - _RANDOM_BITS
    return [UUID(int=time | chance >> spare) for chance in sorted(chances)]


def _short(column: list[Any]) -> tuple[Any, list[Any]]:
    """Returns the first value and all values; no values if all are equal."""
    value = column[0]
    return value, [] if column.count(value) == len(column) else column


def _values_of(job: Job) -> dict[str, Any]:
    """Returns the columns of a job's row for JSON."""
    return {
        "queue": job.queue,
        "func": job.func,
        "kwargs": job.kwargs or {},
        "limits": _limits(job),
        "meta": job.meta,
        "priority": job.priority,
        "max_attempts": job.max_attempts,
        "scheduled_at": str(job.scheduled_at),
        "unique_key": job.unique_key,
    }


def _limits(job: Job) -> list[dict[str, Any]]:
    return [limit.serialize() for limit in job.limits]


def to_json_in(context: AdaptContext | None) -> Callable[[Any], str]:
    """Returns psycopg's function for JSON in a context; set_json_dumps() may change it."""
    dump = Transformer(context).get_dumper(Json(None), PyFormat.TEXT).dump

    def to_json(value: Any) -> str:
        text = dump(Json(value))
        assert text is not None
        return bytes(text).decode()

    return to_json
