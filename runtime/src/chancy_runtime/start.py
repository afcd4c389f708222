"""Makes sure that a start can succeed, or reports in one line why it cannot."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import psycopg
from psycopg.rows import TupleRow

from chancy_runtime.app import Chancy
from chancy_runtime.errors import WorkersError
from chancy_runtime.execution.children import is_executor_child
from chancy_runtime.modes import Mode, workers_mode
from chancy_runtime.postgres.connecting import connect
from chancy_runtime.postgres.migrations import check_tables
from chancy_runtime.postgres.pooler import (
    refuse_transaction_pooler,
    refuse_transaction_port,
    warn_about_connections,
)

_RETRY_INTERVAL = 5
_CLOCK_TOLERANCE = 10


async def check_database(chancy: Chancy, *, workers: int = 1) -> None:
    """Makes sure that the database answers, has the tables and keeps sessions.

    Chancy's pool opens in the background and hides the server's error, so this check uses
    connections of its own, before Chancy is entered. It writes nothing. It refuses a
    transaction pooler, because Chancy's workers die on one within seconds. The time limit
    of the start begins here: with the steps that follow it takes 15 s at most. Where
    WORKERS_MODE is off, nothing is checked.

    Args:
        workers: How many Workers this process runs.

    Raises:
        WorkersError: One line with the reason and the way out.
    """
    if chancy.mode is Mode.OFF:
        return
    if is_executor_child():
        raise WorkersError(
            "a child process of an executor started the service again: put uvicorn.run() "
            'under if __name__ == "__main__":'
        )
    refuse_transaction_port(chancy.dsn)
    chancy.budget.renew()
    async with chancy.step_of_start(), await connect(chancy.dsn) as connection:
        await check_tables(chancy, connection, remedy=chancy.migrate_command)
        await connection.execute(chancy.harmless_write())
        await _warn_about_clock(chancy, connection)
        await refuse_transaction_pooler(chancy.dsn, chancy.prefix, connection)
    warn_about_connections(
        chancy.dsn,
        chancy.settings,
        pool=chancy.max_connection_pool_size,
        workers=workers if chancy.mode is Mode.RUN else 0,
        log=chancy.log,
    )


async def _warn_about_clock(
    chancy: Chancy, connection: psycopg.AsyncConnection[TupleRow]
) -> None:
    cursor = await connection.execute("SELECT extract(epoch FROM clock_timestamp())")
    row = await cursor.fetchone()
    assert row
    ahead = time.time() - float(row[0])
    if abs(ahead) > _CLOCK_TOLERANCE:
        chancy.log.warning(
            "this host's clock is %.0f s %s the database's clock: workers use the "
            "database's clock, but a time that this host computes for a job is wrong by as "
            "much; correct the host's clock",
            *(abs(ahead), "ahead of" if ahead > 0 else "behind"),
        )


class JoiningWorkers:
    """The workers of a service that starts without its database.

    Attributes:
        have_joined: Called when the workers have started.
    """

    def __init__(
        self, initialize: Callable[[], AbstractAsyncContextManager[None]]
    ) -> None:
        self.have_joined: Callable[[], None] = lambda: None
        self._initialize = initialize
        self._log = logging.getLogger(
            initialize.__module__.rpartition(".")[0] or "chancy_runtime"
        )

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        if workers_mode() is Mode.OFF:
            async with self._initialize():
                yield
            return
        stop = asyncio.Event()
        joining = asyncio.create_task(self._join(stop))
        try:
            yield
        finally:
            stop.set()
            await joining

    async def _join(self, stop: asyncio.Event) -> None:
        """Tries to start the workers until they have started, or until the stop."""
        logged = ""
        while not stop.is_set():
            async with contextlib.AsyncExitStack() as stack:
                entering = asyncio.create_task(_entered(stack, self._initialize()))
                try:
                    await _done_or_stopped(entering, stop)
                except Exception as error:
                    if (text := f"{type(error).__name__}: {error}") != logged:
                        logged = text
                        self._log.error(
                            "the workers have not started and try again: %s",
                            error,
                            exc_info=None if isinstance(error, WorkersError) else error,
                        )
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(_RETRY_INTERVAL):
                            await stop.wait()
                else:
                    if not stop.is_set():
                        self._log.info("the workers have joined")
                        self.have_joined()
                    await stop.wait()


def join_when_database_is_there(
    initialize: Callable[[], AbstractAsyncContextManager[None]],
) -> Callable[[], AbstractAsyncContextManager[None]]:
    """Lets the service start without its database; the workers join when it is there.

    A decorator for `initialize_workers`. Until the workers have joined, get_chancy() raises
    an error and /health/ready answers 503.
    """
    return JoiningWorkers(initialize)


async def _done_or_stopped(work: "asyncio.Task[None]", stop: asyncio.Event) -> None:
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        work.cancel()
    await asyncio.wait([work])
    if not work.cancelled():
        work.result()


async def _entered(
    stack: contextlib.AsyncExitStack, manager: AbstractAsyncContextManager[None]
) -> None:
    await stack.enter_async_context(manager)
