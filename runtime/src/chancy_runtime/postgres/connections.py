"""Connections that notice when the server at the other end is gone."""

import asyncio
import os
import select
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from psycopg import AsyncConnection, AsyncCursor
from psycopg.abc import RV, PQGen
from psycopg.conninfo import make_conninfo
from psycopg.errors import FeatureNotSupported
from psycopg.pq import TransactionStatus
from psycopg.rows import Row, TupleRow
from psycopg_pool import AsyncConnectionPool

ANSWER_TIMEOUT = 15
# A server that vanished without a word is given up after idle + interval * count = 20 s.
# https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-KEEPALIVES
_LIBPQ = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": ANSWER_TIMEOUT * 1000,
}


def with_timeouts(url: str) -> str:
    """Returns the URL as a conninfo whose connections do not outlive their server."""
    return make_conninfo(url, **_LIBPQ)


class _Cursor(AsyncCursor[Row]):
    """A cursor that goes on when a migration gives a table another column.

    What PostgreSQL has prepared of a SELECT * is refused then, once on each connection.
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


class Connection(AsyncConnection[TupleRow]):
    """A connection that counts as lost when an answer takes over ANSWER_TIMEOUT seconds.

    A proxy that stopped forwarding still answers TCP's own probes, so that only a
    missing answer tells. Shutting the socket down makes it look to psycopg like any
    other lost connection, and needs no cancellation that would wait for the server.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cursor_factory = _Cursor

    async def wait(self, gen: PQGen[RV], *args: Any, **kwargs: Any) -> RV:
        timer = asyncio.get_running_loop().call_later(ANSWER_TIMEOUT, self._give_up)
        try:
            return await super().wait(gen, *args, **kwargs)
        finally:
            timer.cancel()

    async def cancel_safe(self, *, timeout: float = ANSWER_TIMEOUT) -> None:
        """Ends the connection: a silent server would hold the stop of the service."""
        self._give_up()

    def _give_up(self) -> None:
        shut_down(self)


class DroppableConnection(AsyncConnection[TupleRow]):
    """A connection that is dropped at once when what waits for it is cancelled.

    psycopg 3.3 asks the server to cancel first, which takes 10 s of a silent one.
    """

    async def wait(self, gen: PQGen[RV], *args: Any, **kwargs: Any) -> RV:
        waiting = asyncio.ensure_future(super().wait(gen, *args, **kwargs))
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            shut_down(self)
            await asyncio.gather(waiting, return_exceptions=True)
            raise


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


def shut_down(connection: AsyncConnection[TupleRow]) -> None:
    """Makes a connection look like any other that was lost, whoever waits for it."""
    if not connection.closed:
        with socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
            duplicate.shutdown(socket.SHUT_RDWR)


async def check(connection: Connection) -> None:
    """Looks at a connection before the pool lends it, without asking the server.

    An idle server says nothing: what there is to read is its goodbye.

    Raises:
        psycopg.OperationalError: The connection is lost.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    if poll.poll(0):
        await connection.execute("")
        await connection.rollback()


async def configure(connection: Connection) -> None:
    """Makes a pooler assign a server now: it accepts a client before it has one."""
    await connection.execute("SELECT 1")
    await connection.commit()
