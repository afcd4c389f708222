"""Connections that notice when the server at the other end is gone."""

import asyncio
import os
import select
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

import psycopg
from psycopg import AsyncConnection, AsyncCursor, capabilities
from psycopg.abc import RV, PQGen
from psycopg.conninfo import make_conninfo
from psycopg.errors import FeatureNotSupported, OperationalError, QueryCanceled
from psycopg.pq import TransactionStatus
from psycopg.rows import Row, TupleRow
from psycopg_pool import AsyncConnectionPool

ANSWER_TIMEOUT = 15
# A server that vanished is given up after idle + interval * count = 20 s.
# https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-KEEPALIVES
_LIBPQ: dict[str, str | int] = {
    # psycopg reads texts as bytes where a database or a role has SQL_ASCII.
    "client_encoding": "UTF8",
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": ANSWER_TIMEOUT * 1000,
}


# Defaults that a DBA or a hoster may have changed, and that Chancy or psycopg cannot stand:
# psycopg reads times in ISO format only, results have columns that are empty, a claim would
# fail to be serialized, starts wait for each other, and LISTEN is idle for most of its life. The server ends a statement before ANSWER_TIMEOUT does, so that
# its connection stays and none is opened beside it while the server still works on it.
_SESSION = {
    "DateStyle": "ISO",
    "array_nulls": "on",
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "lock_timeout": "0",
    "transaction_timeout": "0",
}
# A server does not have those of later versions.
_CHANGE = """
SELECT set_config(wanted.name, wanted.value, %s)
FROM unnest(%s::text[], %s::text[]) AS wanted (name, value)
JOIN pg_settings USING (name)
"""


def with_timeouts(url: str) -> str:
    """Returns the URL as a conninfo whose connections do not outlive their server."""
    return make_conninfo(url, **_LIBPQ)


class _Cursor(AsyncCursor[Row]):
    """A cursor that goes on when a migration gives a table another column.

    PostgreSQL then refuses each prepared SELECT * once on each connection.
    """

    async def execute(self, *args: Any, **kwargs: Any) -> Self:
        is_first = self.connection.info.transaction_status == TransactionStatus.IDLE
        try:
            return await super().execute(*args, **kwargs)
        except FeatureNotSupported:
            if not is_first:
                raise
            await self.connection.rollback()
            await super().execute("DEALLOCATE ALL")
            return await super().execute(*args, **kwargs)


class DroppableConnection(AsyncConnection[TupleRow]):
    """A connection that is dropped at once when a query in it is cancelled.

    psycopg 3.3 asks the server to cancel first, and waits up to 10 s for a silent one.
    A dropped connection is closed, so that psycopg does not try to roll back in it, fail,
    and warn of that in the log: the server rolls back when it notices.
    """

    _is_dropped = False

    async def wait(self, gen: PQGen[RV], *args: Any, **kwargs: Any) -> RV:
        try:
            return await super().wait(self._until_dropped(gen), *args, **kwargs)
        finally:
            if self._is_dropped:
                self.pgconn.finish()

    async def cancel_safe(self, *, timeout: float = ANSWER_TIMEOUT) -> None:
        """Drops the connection: the server ends the query when it notices."""
        self._is_dropped = True
        shut_down(self)

    def _until_dropped(self, gen: PQGen[RV]) -> PQGen[RV]:
        """The same, but a query that was dropped ends as a cancelled one does."""
        try:
            return (yield from gen)
        except OperationalError as error:
            if self._is_dropped:
                raise QueryCanceled("the connection was dropped") from error
            raise


class Connection(DroppableConnection):
    """A connection that counts as lost when nothing arrives for ANSWER_TIMEOUT seconds.

    A proxy that stopped forwarding still answers TCP's own probes, so that only a
    missing answer tells. Shutting the socket down makes it look to psycopg like any
    other lost connection, and needs no cancellation that would wait for the server.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cursor_factory = _Cursor

    async def wait(self, gen: PQGen[RV], *args: Any, **kwargs: Any) -> RV:
        self._restart_timer()
        try:
            return await super().wait(self._while_bytes_arrive(gen), *args, **kwargs)
        finally:
            self._timer.cancel()

    def _while_bytes_arrive(self, gen: PQGen[RV]) -> PQGen[RV]:
        """The same, but each part of a long answer starts the time anew."""
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    self._timer.cancel()
                    self._restart_timer()
                wanted = gen.send(ready)
        except StopIteration as end:
            result: RV = end.value
            return result

    def _restart_timer(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(ANSWER_TIMEOUT, shut_down, self)


@asynccontextmanager
async def autocommit(
    pool: AsyncConnectionPool[Connection],
) -> AsyncIterator[Connection]:
    """Lends a connection whose statements are transactions: one round trip, not three."""
    async with pool.connection() as connection:
        await connection.set_autocommit(True)
        try:
            yield connection
        finally:
            if connection.info.transaction_status == TransactionStatus.IDLE:
                await connection.set_autocommit(False)
            else:
                await connection.close()


@asynccontextmanager
async def in_one_transaction(connection: AsyncConnection[Any]) -> AsyncIterator[None]:
    """Sends the statements of the block together, in one round trip where libpq can.

    Their results can be read after the block.
    """
    if not capabilities.has_pipeline():
        async with connection.transaction():
            yield
        return
    cancelled = None
    try:
        async with connection.pipeline():
            try:
                yield
            except asyncio.CancelledError as error:
                # Not raised here: psycopg would warn that the end of a dropped one failed.
                cancelled = error
    except OperationalError as error:
        # A statement that the server ends while it sends the rows leaves two results, of
        # which psycopg 3.3 reads one: it cannot go on, and says that instead of the reason.
        if cancelled is None:
            await connection.close()
            if isinstance(error.__context__, psycopg.Error):
                raise error.__context__ from None
            raise
    if cancelled is not None:
        raise cancelled


def shut_down(connection: AsyncConnection[TupleRow]) -> None:
    """Closes the socket: a query that waits for it ends as on a lost connection."""
    if not connection.closed:
        with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
            with suppress(OSError):  # The other end has closed it.
                duplicate.shutdown(socket.SHUT_RDWR)


async def check(connection: Connection) -> None:
    """Checks a connection before the pool lends it, without a query.

    An idle server sends nothing, so anything that can be read is the end of the session.

    Raises:
        psycopg.OperationalError: The connection is lost.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        await connection.execute("")
        await connection.rollback()


async def configure(connection: AsyncConnection[TupleRow]) -> None:
    """Sets a session up, whatever the defaults of the role and the database are.

    It is the first statement, so that a pooler assigns a server now: it accepts a client
    before it has one.
    """
    settings = {**_SESSION, "statement_timeout": f"{ANSWER_TIMEOUT - 1}s"}
    await change_settings(connection, settings, for_transaction=False)
    if not connection.autocommit:
        await connection.commit()


async def change_settings(
    connection: AsyncConnection[Any] | AsyncCursor[Any],
    settings: Mapping[str, str],
    *,
    for_transaction: bool,
) -> None:
    """Changes those of the server's settings that it has.

    Args:
        for_transaction: Whether they end with the transaction, and not with the session.
    """
    values = [for_transaction, [*settings], [*settings.values()]]
    await connection.execute(_CHANGE, values)
