"""Pushes jobs in a transaction that the service has begun.

SQLAlchemy and asyncpg are not imported unless the service passes one of their objects.
"""

import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from enum import Enum
from typing import Any, LiteralString, Protocol, TypeAlias
from uuid import UUID

from chancy import Job, Reference
from chancy.utils import json_dumps
from psycopg import AsyncConnection, AsyncCursor, Connection, Cursor

from chancy_runtime.jobs.pushes import Batch

# Like Chancy.notify_many(), with one parameter: pairs of a channel and a payload.
_NOTIFY: LiteralString = """
SELECT pg_notify(event->>0, event->>1)
FROM jsonb_array_elements(CAST(CAST($1 AS text) AS jsonb))
    WITH ORDINALITY AS _ (event, position)
ORDER BY position
"""
_Rows: TypeAlias = Iterable[Sequence[Any]]
# Runs a statement with one parameter, $1, which is a text.
_Send: TypeAlias = Callable[[str, str], Awaitable[_Rows]]
_SyncSend: TypeAlias = Callable[[str, str], _Rows]


class AsyncSession(Protocol):
    """An AsyncSession of SQLAlchemy or SQLModel, or an async_scoped_session."""

    def connection(self) -> Awaitable[Any]: ...


class AsyncEngineConnection(Protocol):
    """SQLAlchemy's AsyncConnection."""

    def get_raw_connection(self) -> Awaitable[Any]: ...


class AsyncpgConnection(Protocol):
    """A connection of asyncpg or of its pool."""

    def is_in_transaction(self) -> bool: ...

    def fetch(self, query: str, /, *args: Any) -> Awaitable[Any]: ...


class SyncSession(Protocol):
    """A Session of SQLAlchemy or SQLModel, or a scoped_session."""

    def connection(self) -> Any: ...

    def flush(self) -> None: ...


class EngineConnection(Protocol):
    """SQLAlchemy's Connection."""

    def exec_driver_sql(self, statement: str, /) -> Any: ...

    def close(self) -> None: ...


Transaction: TypeAlias = (
    AsyncCursor[Any]
    | AsyncConnection[Any]
    | AsyncSession
    | AsyncEngineConnection
    | AsyncpgConnection
)
SyncTransaction: TypeAlias = (
    Cursor[Any] | Connection[Any] | SyncSession | EngineConnection
)


class Pusher(Protocol):
    """The attributes of Chancy that a push needs."""

    prefix: str
    notifications: bool


async def push(
    chancy: Pusher,
    session: AsyncSession | AsyncEngineConnection | AsyncpgConnection,
    jobs: list[Job],
) -> list[Reference]:
    """Pushes jobs in the transaction of a session or a connection.

    Raises:
        TypeError: `session` is neither, or does not use asyncio.
    """
    send = await _sender(session)
    batch = Batch(_with_plain_keys(jobs))
    for query, text in batch.texts(chancy.prefix):
        batch.learn(_ids(await send(query, text)))
    if chancy.notifications and jobs:
        await send(_NOTIFY, _events(chancy.prefix, jobs))
    return batch.references()


def sync_push(
    chancy: Pusher, session: SyncSession | EngineConnection, jobs: list[Job]
) -> list[Reference]:
    """Does what push() does, without asyncio.

    Raises:
        TypeError: `session` is neither a session nor a connection, or uses asyncio.
    """
    send = _sync_sender(session)
    batch = Batch(_with_plain_keys(jobs))
    for query, text in batch.texts(chancy.prefix):
        batch.learn(_ids(send(query, text)))
    if chancy.notifications and jobs:
        send(_NOTIFY, _events(chancy.prefix, jobs))
    return batch.references()


async def _sender(target: Any) -> _Send:
    if _is(target, "asyncpg", "Connection"):
        return target.fetch  # type: ignore[no-any-return]
    if _is(target, "sqlalchemy.ext.asyncio", "AsyncSession", "async_scoped_session"):
        target = await target.connection()
    if not _is(target, "sqlalchemy.ext.asyncio", "AsyncConnection"):
        raise TypeError(
            "push_ex() and push_many_ex() take a cursor or a connection of psycopg, an "
            "AsyncSession or an AsyncConnection of SQLAlchemy, or a connection of asyncpg; "
            f"{_name(target)} is none of them: pass one of them, or call "
            "sync_push_many_ex() with an object that does not use asyncio"
        )

    async def send(query: str, text: str) -> _Rows:
        result = await target.execute(_for_sqlalchemy(query), {"text": text})
        return result.all()  # type: ignore[no-any-return]

    return send


def _sync_sender(target: Any) -> _SyncSend:
    if _is(target, "sqlalchemy.orm", "Session", "scoped_session"):
        target = target.connection()
    if not _is(target, "sqlalchemy", "Connection"):
        raise TypeError(
            "sync_push_many_ex() takes a cursor or a connection of psycopg, or a Session or "
            f"a Connection of SQLAlchemy; {_name(target)} is none of them: pass one of them, "
            "or await push_many_ex() with an object that uses asyncio"
        )

    def send(query: str, text: str) -> _Rows:
        result = target.execute(_for_sqlalchemy(query), {"text": text})
        return result.all()  # type: ignore[no-any-return]

    return send


def _is(target: object, module: str, *names: str) -> bool:
    """Whether an object is an instance of a module's classes, without importing it."""
    loaded = sys.modules.get(module)
    return any(
        isinstance(target, kind)
        for name in names
        if (kind := getattr(loaded, name, None)) is not None
    )


def _name(target: object) -> str:
    return f"{type(target).__module__}.{type(target).__qualname__}"


def _for_sqlalchemy(query: str) -> Any:
    from sqlalchemy import text  # The caller has passed an object of SQLAlchemy.

    return text(query.replace("$1", ":text"))


def _with_plain_keys(jobs: list[Job]) -> list[Job]:
    """Returns the jobs with each key as the text that PostgreSQL would store."""
    return [
        job
        if job.unique_key is None or type(job.unique_key) is str
        else job.with_unique_key(_plain(job.unique_key))
        for job in jobs
    ]


def _plain(key: object) -> str:
    return str(key.value if isinstance(key, Enum) else key)


def _ids(rows: _Rows) -> Iterable[tuple[UUID, str | None]]:
    # Drivers return an id as a UUID, as a subclass of UUID, or as text.
    return ((UUID(str(id)), key) for id, key in rows)


def _events(prefix: str, jobs: list[Job]) -> str:
    queues = dict.fromkeys(job.queue for job in jobs)
    payloads = [json_dumps({"t": "queue.pushed", "q": queue}) for queue in queues]
    return json_dumps([[f"{prefix}events", payload] for payload in payloads])
