"""A Worker's connection for notifications of pushed jobs and other events."""

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable

import psycopg
from chancy.hub import Hub
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from chancy_runtime.app import Chancy, RunningWorker
from chancy_runtime.errors import WorkersError
from chancy_runtime.postgres.connecting import reason_of
from chancy_runtime.postgres.connections import DroppableConnection, configure

_LISTEN_TIMEOUT = 5
_LISTEN_INTERVAL = 0.2


async def listen(app: Chancy) -> AsyncConnection[TupleRow]:
    """Returns a new connection that receives the events of the service.

    Raises:
        psycopg.Error: The database refuses the connection.
    """
    connection = await DroppableConnection.connect(app.dsn, autocommit=True)
    try:
        await configure(connection)
        channel = sql.Identifier(f"{app.prefix}events")
        await connection.execute(sql.SQL("LISTEN {}").format(channel))
    except BaseException:
        await connection.close()
        raise
    return connection


async def listen_at_start(app: Chancy) -> AsyncConnection[TupleRow]:
    """Returns a connection that listens, or fails; Chancy 0.26 waits for one for ever.

    Raises:
        WorkersError: The database refuses the connection.
    """
    reason = "no answer"
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LISTEN_TIMEOUT):
            while True:
                try:
                    return await listen(app)
                except psycopg.OperationalError as error:
                    # Connections of the checks may still be closing.
                    reason = reason_of(error)
                    await asyncio.sleep(_LISTEN_INTERVAL)
    raise WorkersError(
        f"the database {app.monitor.database} has no connection left for "
        f"LISTEN ({reason}): each Worker needs one beside CHANCY_MAX_POOL_SIZE, so "
        "raise the database's limit or the pooler's pool size, or lower "
        "CHANCY_MIN_POOL_SIZE"
    )


async def pass_on(
    connection: AsyncConnection[TupleRow], hub: Hub, started: Callable[[], None]
) -> None:
    """Emits each notification as an event, until the connection is lost.

    Args:
        started: Called before the first notification.

    Raises:
        psycopg.Error: The connection is lost.
    """
    async with connection:
        started()
        async for notification in connection.notifies():
            event = json.loads(notification.payload)
            await hub.emit(event.pop("t"), event)


async def renew_when_silent(
    app: Chancy,
    worker: RunningWorker,
    hub: Hub,
    *,
    patience: float,
    renew: Callable[[], Awaitable[None]],
) -> None:
    """Renews LISTEN when its connection has gone silent; heartbeats should arrive on it.

    Args:
        patience: Seconds without an announced heartbeat after which it counts as silent.
        renew: Opens a new connection.
    """
    while True:
        since = time.monotonic()
        heard = await hub.wait_for("worker.announced", timeout=patience)
        announced = since < worker.last_heartbeat < time.monotonic() - 1
        if not heard and announced and app.monitor.has_been_calm_for(patience):
            app.log.warning("LISTEN has gone silent and is set up again")
            await renew()
