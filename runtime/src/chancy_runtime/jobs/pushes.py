"""Pushes jobs, a batch in one statement."""

import secrets
import struct
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import Any, TypeAlias
from uuid import UUID

from chancy import Job, Reference
from chancy.job import IsAJob
from chancy.utils import chancy_uuid, lock_order_key
from psycopg import AsyncCursor, Cursor
from psycopg.abc import AdaptContext
from psycopg.adapt import PyFormat, Transformer
from psycopg.rows import DictRow
from psycopg.types.json import Json

from chancy_runtime.jobs.rows import statement

AnyJob: TypeAlias = Job | IsAJob[..., Any]
# More jobs, or larger ones, take several statements: the event loop has its turn in
# between, and PostgreSQL takes no message above 1 GB.
_MOST_JOBS = 1000
_MOST_CHARACTERS = 4_000_000
# Of an id of Chancy's, after the time.
_RANDOM_BITS = 62
# A column that has one value for all jobs is that value and an empty array.
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
# What happens to a row whose key is in use is Chancy's choice, to the letter.
_PUSH_KEYS = (
    _PUSH
    + """
ON CONFLICT (unique_key)
WHERE unique_key IS NOT NULL AND state NOT IN ('succeeded', 'failed')
DO UPDATE SET state = {jobs}.state
RETURNING id, unique_key
"""
)


def fit_one_statement(jobs: list[Job]) -> bool:
    """Whether push() serves the jobs; it is slower for a single one."""
    return len(jobs) != 1 and all(map(_is_usual, jobs))


def _is_usual(job: Job) -> bool:
    """Whether the values of a job have the types that Chancy annotates.

    PostgreSQL converts some others, each in a way of its own: a UUID as the key, or a
    text as the time. A statement for each job lets it.
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
    """Returns the jobs themselves where functions decorated with @job are among them."""
    return [job if isinstance(job, Job) else job.job for job in jobs]


async def push(
    prefix: str, jobs: list[Job], cursor: AsyncCursor[DictRow]
) -> list[Reference]:
    """Inserts jobs as Chancy.push_many_ex() does, without the notification."""
    batch = _Batch(jobs)
    for query, columns, has_keys in batch.statements(prefix, cursor):
        await cursor.execute(query, columns)
        if has_keys:
            batch.learn(await cursor.fetchall())
    return batch.references()


def sync_push(prefix: str, jobs: list[Job], cursor: Cursor[DictRow]) -> list[Reference]:
    """Inserts jobs as Chancy.sync_push_many_ex() does, without the notification."""
    batch = _Batch(jobs)
    for query, columns, has_keys in batch.statements(prefix, cursor):
        cursor.execute(query, columns)
        if has_keys:
            batch.learn(cursor.fetchall())
    return batch.references()


class _Batch:
    """Which rows a batch of jobs becomes.

    Jobs with one key are one row, that of the first: Chancy 0.26 inserts one by one, and
    the others find its row. Rows are in the order of keys, in which all that lock several
    of them do so; ids grow in that order too.
    """

    def __init__(self, jobs: list[Job]) -> None:
        keys = [job.unique_key for job in jobs]
        # What the row of each job is known by: its key, or its place without one.
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
        """Yields statements, the values of their parameters, and whether to learn."""
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
        """Yields the parameters of _PUSH, in parts where the jobs are large."""
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
        # An array holds times with a zone or times without.
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

    def learn(self, rows: list[DictRow]) -> None:
        """Takes the ids of rows whose keys were in use."""
        for row in rows:
            if row["unique_key"] is not None:
                self._ids[row["unique_key"]] = row["id"]

    def references(self) -> list[Reference]:
        """Returns a reference for each job, in the order of the jobs."""
        return [Reference(self._ids[name]) for name in self._names]


def _new_ids(count: int) -> list[UUID]:
    """Returns ids as chancy_uuid() makes them, in their order, in a third of its time."""
    time = chancy_uuid().int >> _RANDOM_BITS << _RANDOM_BITS
    chances = struct.unpack(f"{count}Q", secrets.token_bytes(8 * count))
    spare = 64 - _RANDOM_BITS
    return [UUID(int=time | chance >> spare) for chance in sorted(chances)]


def _short(column: list[Any]) -> tuple[Any, list[Any]]:
    """Returns a value, and those of all jobs unless each is that value."""
    value = column[0]
    return value, [] if column.count(value) == len(column) else column


def _limits(job: Job) -> list[dict[str, Any]]:
    return [limit.serialize() for limit in job.limits]


def to_json_in(context: AdaptContext | None) -> Callable[[Any], str]:
    """Returns what makes JSON as psycopg does there, by set_json_dumps() for example."""
    dump = Transformer(context).get_dumper(Json(None), PyFormat.TEXT).dump

    def to_json(value: Any) -> str:
        text = dump(Json(value))
        assert text is not None
        return bytes(text).decode()

    return to_json
