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
# A connection to a vanished server is given up after idle + interval * count = 20 s.
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


# Settings whose defaults a DBA or a hoster may have changed to values that break Chancy or
# psycopg: psycopg reads times in ISO format only, results are saved as arrays with NULLs,
# claims could fail with serialization errors, starts wait for each other's locks, and a
# LISTEN connection is idle for most of its life. The server ends a statement shortly before
# ANSWER_TIMEOUT: so its connection stays, and no second connection is opened while the
# server still works on the statement.
_SESSION = {
    "DateStyle": "ISO",
    "array_nulls": "on",
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "lock_timeout": "0",
    "transaction_timeout": "0",
}
# An older server lacks the settings of later versions.
_CHANGE = """
SELECT set_config(wanted.name, wanted.value, %s)
FROM unnest(%s::text[], %s::text[]) AS wanted (name, value)
JOIN pg_settings USING (name)
"""


def with_timeouts(url: str) -> str:
    """Returns a conninfo for the URL whose connections notice when their server is gone."""
    return make_conninfo(url, **_LIBPQ)


class _Cursor(AsyncCursor[Row]):
    """A cursor that keeps working after a migration adds a column to a table.

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
    """A connection that is dropped at once when one of its queries is cancelled.

    psycopg 3.3 first asks the server to cancel, and waits up to 10 s for a silent server.
    A dropped connection is also closed. Otherwise psycopg would try to roll back, fail, and
    log a warning. The server rolls back when it notices.
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
        """Raises QueryCanceled for the error of a dropped connection."""
        try:
            return (yield from gen)
        except OperationalError as error:
            if self._is_dropped:
                raise QueryCanceled("the connection was dropped") from error
            raise


class Connection(DroppableConnection):
    """A connection that counts as lost when nothing arrives for ANSWER_TIMEOUT seconds.

    A proxy that no longer forwards still answers TCP's own probes, so only a missing answer
    shows the loss. After the socket is shut down, psycopg sees a lost connection; this needs
    no cancellation, which would wait for the server.
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
        """Restarts the timer at each part of a long answer."""
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
    """Yields a connection in autocommit mode: a statement is one round trip, not three."""
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
    """Sends the statements of the block together, in one round trip if libpq can.

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
                # Not raised here: psycopg would warn that a dropped pipeline failed to end.
                cancelled = error
    except OperationalError as error:
        # If the server ends a statement while it sends rows, there are two results. psycopg
        # 3.3 reads only one: the connection cannot be used, and its error hides the reason.
        if cancelled is None:
            await connection.close()
            if isinstance(error.__context__, psycopg.Error):
                raise error.__context__ from None
            raise
    if cancelled is not None:
        raise cancelled


def shut_down(connection: AsyncConnection[TupleRow]) -> None:
    """Shuts the socket down: a waiting query ends as if the connection was lost."""
    if not connection.closed:
        with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
            with suppress(OSError):  # The other end has closed it.
                duplicate.shutdown(socket.SHUT_RDWR)


async def check(connection: Connection) -> None:
    """Checks a connection before the pool lends it, without a query.

    An idle server sends nothing, so if anything can be read, the session has ended.

    Raises:
        psycopg.OperationalError: The connection is lost.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        await connection.execute("")
        await connection.rollback()


async def configure(connection: AsyncConnection[TupleRow]) -> None:
    """Sets up a session, whatever the defaults of the role and the database are.

    This is the first statement, at which a pooler assigns a server: it accepts clients
    before it has a server for them.
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
    """Changes settings of the server; those that it does not have are skipped.

    Args:
        for_transaction: Whether the changes end with the transaction; otherwise they end
            with the session.
    """
    values = [for_transaction, [*settings], [*settings.values()]]
    await connection.execute(_CHANGE, values)
