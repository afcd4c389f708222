"""Chancy, on a pool that renews what it lost, with a monitor of the tasks that use it."""

import asyncio
import logging
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable
from weakref import WeakSet, finalize

import chancy
import psycopg
from chancy import Queue
from psycopg_pool import AsyncConnectionPool

from chancy_runtime.postgres.connections import Connection, check, configure, shut_down, with_timeouts
from chancy_runtime.postgres.target import failed_start, harmless_write, target_of
from chancy_runtime.errors import WorkersError
from chancy_runtime.execution.hooks import contain_hooks
from chancy_runtime.jobs.rows import UNREADABLE
from chancy_runtime.supervision.monitor import Monitor
from chancy_runtime.queues.rows import check_tags, readable_queues
from chancy_runtime.settings import Settings, check_range
from chancy_runtime.supervision.signals import on_sigterm
from chancy_runtime.supervision.watchdog import Watchdog

if TYPE_CHECKING:
    from chancy_runtime.worker import Worker

_OPEN_TIMEOUT = 8
_LEND_TIMEOUT = 10
_CLOSE_TIMEOUT = 1
_FILL_INTERVAL = 0.005
_START_TIMEOUT = 7


@runtime_checkable
class _TagsEvents(Protocol):
    """A plugin that can tag what is reported, as chancy_sentry.SentryPlugin does."""

    def scope(self, **tags: str) -> AbstractContextManager[object]: ...


class Chancy(chancy.Chancy):
    """The service's one Chancy.

    Takes what chancy.Chancy takes, and:

    Args:
        settings: The timing and the size of the workers.

    Raises:
        WorkersError: A pool size or a setting is out of its range.
    """

    def __init__(self, dsn: str, *, settings: Settings, **options: Any) -> None:
        super().__init__(with_timeouts(dsn), **options)
        highest = self.max_connection_pool_size
        check_range("CHANCY_MAX_POOL_SIZE", highest, 1, 1000)
        check_range("CHANCY_MIN_POOL_SIZE", self.min_connection_pool_size, 1, highest)
        settings.check()
        self.settings = settings
        self.workers: list[Worker] = []
        self._connections: WeakSet[Connection] = WeakSet()
        self._waiting_for_server: set[Connection] = set()
        self.is_starting = False
        self._start_timer: asyncio.TimerHandle | None = None
        self._start_failure: TimeoutError | None = None
        self.monitor = Monitor(
            log=self.log,
            database=target_of(self.dsn),
            probe=self.probe,
            scope=self._scope,
        )
        self._watchdog = Watchdog(self)
        self._asking: asyncio.Task[bool] | None = None
        for plugin in self.plugins.values():
            contain_hooks(plugin, self.monitor.report)

    @cached_property
    def pool(self) -> AsyncConnectionPool[Connection]:  # type: ignore[override]
        """The pool of all queries; LISTEN has a connection of its own beside it."""
        return AsyncConnectionPool(
            self.dsn,
            connection_class=Connection,
            min_size=self.min_connection_pool_size,
            max_size=self.max_connection_pool_size,
            name=f"{self.prefix}workers",
            open=False,
            check=check,
            configure=self._configure,
            timeout=_LEND_TIMEOUT,
            # A short round of attempts after another, or the pauses grow to minutes.
            reconnect_timeout=_LEND_TIMEOUT,
        )

    async def _configure(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._waiting_for_server.add(connection)
        try:
            await configure(connection)
        finally:
            self._waiting_for_server.discard(connection)

    def has_started(self) -> None:
        """A Worker says that it works: from now on an error is no failed start."""
        self.is_starting = False
        if self._start_timer is not None:
            self._start_timer.cancel()

    def _give_up_start(self) -> None:
        """Ends a start that hangs; cancelling it would wait for a server that is silent."""
        self._start_failure = TimeoutError(f"no answer within {_START_TIMEOUT} s")
        for connection in self._connections:
            shut_down(connection)

    async def probe(self) -> None:
        """Makes sure that the database answers and takes writes; writes nothing.

        Raises:
            psycopg.Error: It does not.
        """
        await self.pool.drain()
        await self.check_writable()

    async def check_writable(self) -> None:
        """Asks the database for a write that changes no row.

        Raises:
            psycopg.Error: It does not answer, or is read-only.
        """
        async with self.pool.connection(timeout=5) as connection:
            await connection.execute(harmless_write(self.prefix))

    async def is_writable(self, *, timeout: float) -> bool:
        """Whether the database takes writes; who asks at the same time shares the answer."""
        if self.monitor.database_is_lost:
            return False
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        # Not cancelled when it is late: that would take psycopg even longer.
        done, _ = await asyncio.wait([self._asking], timeout=timeout)
        return bool(done) and self._asking.result()

    async def _ask(self) -> bool:
        try:
            await self.check_writable()
        except psycopg.Error:
            return False
        return True

    async def get_all_queues(self) -> list[Queue]:
        """Returns the queues whose rows can be read; the others are reported.

        In Chancy 0.26, one that cannot be read ends the taking of all queues.
        """
        try:
            queues: list[Queue] = await super().get_all_queues()
            for queue in queues:
                check_tags(queue)
        except UNREADABLE:
            queues, errors = await readable_queues(self)
        else:
            errors = {}
        self.monitor.replace_failing("row of the queue ", errors)
        return queues

    async def __aenter__(self) -> Self:
        quiet = _Quiet(self.pool.name, self.monitor)
        pool_log = logging.getLogger("psycopg.pool")
        pool_log.addFilter(quiet)
        # Not at the close: what a pool had begun may end, and be told, later.
        finalize(self, pool_log.removeFilter, quiet)
        try:
            await self.pool.open()
            async with asyncio.timeout(_OPEN_TIMEOUT):
                await self._until_full()
        except TimeoutError:
            await self._close()
            raise WorkersError(
                f"the database {self.monitor.database} did not give the "
                f"{self.min_connection_pool_size} connections of CHANCY_MIN_POOL_SIZE in "
                f"{_OPEN_TIMEOUT} s ({self.monitor.connect_error or 'no answer'}): raise "
                "its limit or the pooler's pool size, or lower CHANCY_MIN_POOL_SIZE"
            ) from None
        if self.is_starting:
            self._start_timer = asyncio.get_running_loop().call_later(
                _START_TIMEOUT, self._give_up_start
            )
        self._watchdog.start()
        self._at_exit = ExitStack()
        self._at_exit.enter_context(on_sigterm(self._stop_workers))
        return self

    def _stop_workers(self) -> None:
        self._stops = [asyncio.create_task(each.stop()) for each in self.workers]

    async def __aexit__(
        self, kind: object, error: BaseException | None, traceback: object
    ) -> None:
        self._at_exit.close()
        self._watchdog.stop()
        await self.monitor.close()
        if self._asking is not None:
            self._asking.cancel()
        await self._close()
        starting = self.is_starting
        self.has_started()
        if starting and isinstance(error, psycopg.Error):
            reason = self._start_failure or error
            raise failed_start(self.monitor.database, reason) from error

    async def _until_full(self) -> None:
        while self.pool.get_stats()["pool_available"] < self.min_connection_pool_size:
            await asyncio.sleep(_FILL_INTERVAL)

    async def _close(self) -> None:
        for connection in list(self._waiting_for_server):
            shut_down(connection)
        await self.pool.close(timeout=_CLOSE_TIMEOUT)
        del self.pool

    def _scope(self, **tags: str) -> AbstractContextManager[object]:
        for plugin in self.plugins.values():
            if isinstance(plugin, _TagsEvents):
                return plugin.scope(**tags)
        return nullcontext()


class _Quiet(logging.Filter):
    """Keeps each failed attempt of the pool out of the log; the monitor says it once."""

    def __init__(self, pool: str, monitor: Monitor) -> None:
        super().__init__()
        self._pool = pool
        self._monitor = monitor

    def filter(self, record: logging.LogRecord) -> bool:
        match record.args:
            case (self._pool, BaseException() as error):
                self._monitor.connect_error = " ".join(str(error).split())
                return False
            case (Connection(), *_):
                return False
            case (str() as name, *_) if name.startswith(self._pool):
                return False
        return True
