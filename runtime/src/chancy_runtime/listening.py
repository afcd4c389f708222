"""The connection of a Worker that hears of pushed jobs and other events."""

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from chancy_runtime.app import Chancy
from chancy_runtime.postgres.connections import DroppableConnection
from chancy_runtime.postgres.target import reason_of
from chancy_runtime.errors import WorkersError

if TYPE_CHECKING:
    from chancy_runtime.worker import Worker

_LISTEN_TIMEOUT = 5
_LISTEN_INTERVAL = 0.2


async def listen(app: Chancy) -> AsyncConnection[TupleRow]:
    """Returns a new connection that hears of the events of the service.

    Raises:
        psycopg.Error: The database gives none.
    """
    connection = await DroppableConnection.connect(app.dsn, autocommit=True)
    try:
        channel = sql.Identifier(f"{app.prefix}events")
        await connection.execute(sql.SQL("LISTEN {}").format(channel))
    except BaseException:
        await connection.close()
        raise
    return connection


async def listen_at_start(app: Chancy) -> AsyncConnection[TupleRow]:
    """A connection that listens, or one line; Chancy 0.26 waits for one for ever.

    Raises:
        WorkersError: The database gives none.
    """
    reason = "no answer"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LISTEN_TIMEOUT):
            while True:
                try:
                    return await listen(app)
                except psycopg.OperationalError as error:
                    # Connections of the checks may still be about to end.
                    reason = reason_of(error)
                    await asyncio.sleep(_LISTEN_INTERVAL)
    raise WorkersError(
        f"the database {app.monitor.database} has no connection left for "
        f"LISTEN ({reason}): each Worker needs one beside CHANCY_MAX_POOL_SIZE, so "
        "raise the database's limit or the pooler's pool size, or lower "
        "CHANCY_MIN_POOL_SIZE"
    )


async def renew_when_silent(worker: "Worker") -> None:
    """Renews LISTEN when its connection has gone silent: heartbeats come through it."""
    monitor, patience = worker.chancy.monitor, 1.5 * worker.heartbeat_poll_interval
    while True:
        since = time.monotonic()
        heard = await worker.hub.wait_for("worker.announced", timeout=patience)
        announced = since < worker.last_heartbeat < time.monotonic() - 1
        if not heard and announced and monitor.has_been_calm_for(patience):
            worker.chancy.log.warning("LISTEN has gone silent and is set up again")
            await worker.renew("notifications")
