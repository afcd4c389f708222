"""Chancy on a pool that replaces lost connections, with a monitor for its tasks."""

import asyncio
import logging
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import (
    AbstractContextManager,
    ExitStack,
    asynccontextmanager,
    nullcontext,
)
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, runtime_checkable
from weakref import WeakSet, finalize, ref

import chancy
import psycopg
from chancy import Job, Queue, QueuedJob, Reference
from chancy.executors.base import Executor
from chancy.utils import DatabaseConnection, chunked, get_database_dsn
from psycopg import AsyncConnection, AsyncCursor, Cursor, sql
from psycopg.rows import DictRow
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from chancy_runtime.errors import (
    WorkersError,
    is_chancys_worker_command,
    refuse_arguments,
    refuse_chancys_worker,
    show_start_errors_as_one_line,
)
from chancy_runtime.execution.observers import observed_push
from chancy_runtime.jobs import pushes, recording
from chancy_runtime.jobs.registered import Registered
from chancy_runtime.jobs.rows import UNREADABLE, statement
from chancy_runtime.modes import VARIABLE, Mode, workers_mode
from chancy_runtime.postgres.connecting import (
    failed_start,
    harmless_push,
    harmless_write,
    refuse_other_systems,
)
from chancy_runtime.postgres.connections import (
    Connection,
    check,
    configure,
    shut_down,
    with_timeouts,
)
from chancy_runtime.postgres.migrations import parts_of
from chancy_runtime.postgres.target import target_of
from chancy_runtime.queues.deployment import Deployment
from chancy_runtime.queues.rows import check_tags, readable_queues
from chancy_runtime.settings import Settings, check_range
from chancy_runtime.supervision.budget import CLOSE_SECONDS, START_SECONDS, Budget
from chancy_runtime.supervision.monitor import Monitor
from chancy_runtime.supervision.signals import on_sigterm
from chancy_runtime.supervision.tasks import finish
from chancy_runtime.supervision.watchdog import Watchdog

if TYPE_CHECKING:
    from chancy_runtime.jobs import transactions

# Seconds that a query waits for a connection of the pool.
_LEND_TIMEOUT = 10
_WRITABLE_TIMEOUT = 5
_FILL_INTERVAL = 0.005
# The most connections of a process that only pushes.
_PUSH_POOL_SIZE = 4
_CANCEL = """
UPDATE {jobs} SET state = 'failed', claim_id = NULL, completed_at = NOW()
WHERE id = %s AND state NOT IN ('succeeded', 'failed')
"""
# Arguments of Chancy's class that have no effect here.
_REPLACED = {
    "poll_reconnect_timeout": "leave it out; the pool tries again every few seconds for "
    "as long as it takes",
}


@runtime_checkable
class _TagsEvents(Protocol):
    """A plugin that can tag reports, such as SentryPlugin."""

    def scope(self, **tags: str) -> AbstractContextManager[object]: ...


class RunningWorker(Protocol):
    """A Worker that has started, as Chancy sees it."""

    heartbeat_timeout: int
    is_leader: asyncio.Event
    last_heartbeat: float
    tags: frozenset[str]
    worker_id: str

    @property
    def executors(self) -> dict[str, Executor]: ...

    async def stop(self) -> bool: ...


class Chancy(chancy.Chancy):
    """The service's one Chancy; its connections notice when their server is gone.

    Takes the arguments of chancy.Chancy. Entering it opens the pool and waits until the pool
    has its smallest size (Chancy 0.26 neither waits nor fails); leaving it closes everything.
    While it is open, its Workers stop at SIGTERM (uvicorn would first wait for open
    requests), a job that blocks the event loop is reported, and one monitor collects failures.
    In the mode `push` it only pushes, on a pool of 1 to 4 connections: nothing is declared
    or scheduled, and its Workers do not start. In the mode `off` it connects to no database,
    and calls that need one raise a WorkersError.

    Args:
        dsn: The URL of the database, or Django's dictionary of settings.
        settings: The timing and the size of the workers.
        package: The package whose commands `python -m` runs (`__package__` in
            chancy_initialization.py). Messages name it, and its logger is used unless
            `log` is given.
        mode: "run" or "push": what this process does unless WORKERS_MODE says otherwise.
        options: The other arguments of chancy.Chancy, except poll_reconnect_timeout: the
            pool tries again every few seconds for as long as it takes.

    Attributes:
        monitor: Knows which tasks work and which fail.
        registered: The functions and executors that rows may name.
        mode: What this process does: runs its Workers, only pushes, or neither.
        deployment: Which deployment this process belongs to.
        workers: The Workers that have started and not stopped.
        elsewhere: The Workers that run in another process.
        has_unsaved_results: Whether a Worker stopped without saving its last results.

    Raises:
        WorkersError: A pool size or a setting is out of its range, WORKERS_MODE or `mode`
            is not a mode, or poll_reconnect_timeout was passed.
    """

    def __init__(
        self,
        dsn: str | DatabaseConnection,
        *,
        settings: Settings | None = None,
        package: str | None = None,
        mode: str = Mode.RUN,
        **options: Any,
    ) -> None:
        show_start_errors_as_one_line()
        refuse_arguments("Chancy", options.keys() & _REPLACED, _REPLACED)
        url = dsn if isinstance(dsn, str) else get_database_dsn(dsn)
        if options.get("log") is None:
            options["log"] = logging.getLogger(package or "chancy_runtime")
        super().__init__(with_timeouts(url), **options)
        self.package = package or "the code that creates Chancy"
        self.migrate_command = (
            f"run python -m {package} migrate" if package else "await migrate(chancy)"
        )
        self.settings = settings or Settings()
        highest = self.max_connection_pool_size
        smallest = self.min_connection_pool_size
        check_range("CHANCY_MAX_POOL_SIZE", highest, 1, 1000, where=self.package)
        check_range("CHANCY_MIN_POOL_SIZE", smallest, 1, highest, where=self.package)
        self.settings.check(where=self.package)
        if mode not in (Mode.RUN, Mode.PUSH):
            raise WorkersError(
                f"mode is {mode!r}, but must be run or push: correct it in {self.package}"
            )
        self.mode = workers_mode(mode)
        if self.mode is Mode.PUSH:
            self.min_connection_pool_size = 1
            self.max_connection_pool_size = min(highest, _PUSH_POOL_SIZE)
        self.registered = Registered(
            package, self.settings, where=self.package, log=self.log
        )
        self.workers: list[RunningWorker] = []
        self.elsewhere: list[RunningWorker] = []
        self.has_unsaved_results = False
        self.deployment = Deployment(self)
        self.budget = Budget()
        self.monitor = Monitor(
            log=self.log,
            database=target_of(self.dsn),
            probe=self.probe,
            scope=self._scope,
        )
        self._watchdog = Watchdog(
            name_of=self._name_of,
            report=lambda message: self.monitor.report(
                message, None, task="event loop"
            ),
            log=self.log,
        )
        self._connections: WeakSet[Connection] = WeakSet()
        self._waiting_for_server: set[Connection] = set()
        self._asking: asyncio.Task[bool] | None = None
        self._stops: list[asyncio.Task[bool]] = []
        self._is_open_without_pool = False

    def __setattr__(self, name: str, value: object) -> None:
        # The first assignment is made by Chancy's __init__, to its default.
        if name in _REPLACED and hasattr(self, name):
            refuse_arguments("Chancy", [name], _REPLACED)
        super().__setattr__(name, value)

    # --- the pool --------------------------------------------------------------------

    @cached_property
    def pool(self) -> AsyncConnectionPool[Connection]:
        """The pool of all queries; LISTEN has a connection of its own beside it."""
        self._refuse_when_off()
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
            # Short rounds of attempts: within one round the pauses grow to minutes.
            reconnect_timeout=_LEND_TIMEOUT,
        )

    @cached_property
    def sync_pool(self) -> ConnectionPool[Any]:
        self._refuse_when_off()
        return super().sync_pool

    @property
    def is_open(self) -> bool:
        """Whether jobs can be pushed: entered, and not left yet."""
        if self.mode is Mode.OFF:
            return self._is_open_without_pool
        return "pool" in vars(self) and not self.pool.closed

    def _refuse_when_off(self) -> None:
        if self.mode is Mode.OFF:
            raise recording.off()

    async def _configure(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._waiting_for_server.add(connection)
        try:
            await configure(connection)
        finally:
            self._waiting_for_server.discard(connection)

    def __enter__(self) -> Self:
        return self if self.mode is Mode.OFF else super().__enter__()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False]:
        if self.mode is not Mode.OFF:
            super().__exit__(kind, error, traceback)
        return False

    async def __aenter__(self) -> Self:
        if self.mode is Mode.OFF:
            self.log.info("%s is off: no worker runs, nothing is pushed", VARIABLE)
            self._is_open_without_pool = True
            return self
        refuse_other_systems()
        if is_chancys_worker_command():
            refuse_chancys_worker("Chancy", self.package)
        quiet = _Quiet(self.pool.name, self.monitor)
        pool_log = logging.getLogger("psycopg.pool")
        pool_log.addFilter(quiet)
        # Not at the close: an attempt of the pool may fail, and be logged, even later.
        finalize(self, pool_log.removeFilter, quiet)
        try:
            await self._open()
        except BaseException:
            self.budget.renew()
            await finish(self._close())
            raise
        if self.mode is Mode.RUN:
            self._watchdog.start()
        self._at_exit = ExitStack()
        self._at_exit.enter_context(on_sigterm(self._stop_workers))
        return self

    async def _open(self) -> None:
        with self.budget.step() as seconds:
            await self.pool.open()
            try:
                async with asyncio.timeout(seconds):
                    await self._until_full()
            except TimeoutError:
                raise WorkersError(
                    f"the database {self.monitor.database} did not give the "
                    f"{self.min_connection_pool_size} connections of "
                    f"CHANCY_MIN_POOL_SIZE in the {START_SECONDS:.0f} s of a start "
                    f"({self.monitor.connect_error or 'no answer'}): raise the database's "
                    "connection limit or the pooler's pool size, or lower "
                    "CHANCY_MIN_POOL_SIZE"
                ) from None

    async def _until_full(self) -> None:
        while self.pool.get_stats()["pool_available"] < self.min_connection_pool_size:
            await asyncio.sleep(_FILL_INTERVAL)

    async def __aexit__(
        self, kind: object, error: BaseException | None, traceback: object
    ) -> None:
        if self.mode is Mode.OFF:
            self._is_open_without_pool = False
            return
        self._at_exit.close()
        self._watchdog.stop()
        self.budget.renew()
        await finish(self._end())

    async def _end(self) -> None:
        await self.monitor.close()
        if self._asking is not None:
            self._asking.cancel()
        await self._close()

    async def _close(self) -> None:
        for connection in list(self._waiting_for_server):
            shut_down(connection)
        await self.pool.close(timeout=CLOSE_SECONDS)
        del self.pool

    # --- the start and the stop ------------------------------------------------------

    @asynccontextmanager
    async def step_of_start(self) -> AsyncIterator[None]:
        """Limits the time of a step of the start, and makes its database error one line.

        Raises:
            WorkersError: The database refused, or gave no answer in the time that the
                start has left.
        """
        if self.workers:  # The service has started already: there is a new limit.
            self.budget.renew()
        with self.budget.step() as seconds:
            limit = asyncio.timeout(seconds)
            try:
                async with limit:
                    yield
            except (psycopg.Error, TimeoutError) as error:
                if limit.expired():
                    silence = TimeoutError(
                        f"no answer in the {START_SECONDS:.0f} s of a start"
                    )
                    raise failed_start(self.monitor.database, silence) from error
                if isinstance(error, psycopg.Error):
                    raise failed_start(self.monitor.database, error) from error
                raise

    def _stop_workers(self) -> None:
        self._stops = [asyncio.create_task(each.stop()) for each in self.workers]

    # --- the database ----------------------------------------------------------------

    async def probe(self) -> None:
        """Makes sure that the database answers and takes writes; writes nothing.

        Raises:
            psycopg.Error: The database does not answer, or is read-only.
        """
        await self.pool.drain()
        await self.check_writable()

    def harmless_write(self) -> sql.Composed:
        """Returns a statement that changes no row and needs the rights of this process."""
        to_check = harmless_push if self.mode is Mode.PUSH else harmless_write
        return to_check(self.prefix)

    async def check_writable(self) -> None:
        """Sends the database a write that changes no row.

        Raises:
            psycopg.Error: The database does not answer, or is read-only.
        """
        async with self.pool.connection(timeout=_WRITABLE_TIMEOUT) as connection:
            await connection.execute(self.harmless_write())

    async def is_writable(self, *, timeout: float) -> bool:
        """Whether the database takes writes; simultaneous calls share one query.

        Args:
            timeout: Seconds after which the database counts as not writable.
        """
        if self.monitor.database_is_lost:
            return False
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        # A late query is not cancelled: psycopg would take even longer for that.
        done, _ = await asyncio.wait([self._asking], timeout=timeout)
        return bool(done) and self._asking.result()

    async def _ask(self) -> bool:
        try:
            await self.check_writable()
        except psycopg.Error:
            return False
        return True

    async def is_up_to_date(self) -> bool:
        """Returns whether no migration of the tables is due.

        Chancy 0.26 creates a table to find out; not every role may do that.
        """
        await self.pool.open()
        async with self.pool.connection() as connection:
            parts = await parts_of(connection, self)
        return not any(part.migrator and part.due for part in parts)

    async def get_all_queues(self) -> list[Queue]:
        """Returns the queues whose rows can be read; the others are reported.

        In Chancy 0.26, one row that cannot be read hides all queues.
        """
        errors: dict[str, BaseException] = {}
        try:
            queues: list[Queue] = await super().get_all_queues()
            for queue in queues:
                check_tags(queue)
        except UNREADABLE:
            queues, errors = await readable_queues(self)
        self.monitor.replace_failing("row of the queue ", errors)
        return queues

    # --- pushes ----------------------------------------------------------------------

    @property
    def _sends(self) -> bool:
        """Whether pushes go to the database; a test may record them instead."""
        return self.mode is not Mode.OFF and not recording.is_on()

    async def push(self, job: pushes.AnyJob) -> Reference:
        return await super().push(job) if self._sends else recording.record([job])[0]

    async def push_ex(
        self, cursor: "transactions.Transaction", job: pushes.AnyJob
    ) -> Reference:
        """Pushes a job in a transaction of the service; see push_many_ex()."""
        return (await self.push_many_ex(cursor, [job]))[0]

    def push_many(
        self, jobs: Iterable[pushes.AnyJob], *, batch_size: int = 1000
    ) -> AsyncGenerator[list[Reference]]:
        if self._sends:
            return super().push_many(jobs, batch_size=batch_size)
        return recording.record_many(jobs, batch_size)

    def sync_push(self, job: Job) -> Reference:
        return super().sync_push(job) if self._sends else recording.record([job])[0]

    def sync_push_many(
        self, jobs: Iterable[Job], *, batch_size: int = 1000
    ) -> Iterator[list[Reference]]:
        if self._sends:
            return super().sync_push_many(jobs, batch_size=batch_size)
        return map(recording.record, chunked(jobs, batch_size))

    async def push_many_ex(
        self, cursor: "transactions.Transaction", jobs: Sequence[pushes.AnyJob]
    ) -> list[Reference]:
        """Pushes jobs in a transaction of the service, each batch in one statement.

        If the transaction is rolled back, nothing was pushed. Chancy 0.26 sends a statement
        for each job, and accepts only a cursor whose rows are dictionaries.

        Args:
            cursor: A cursor of psycopg, a connection of psycopg or asyncpg, or an
                AsyncSession or AsyncConnection of SQLAlchemy.

        Raises:
            TypeError: `cursor` is none of these.
        """
        if not self._sends:
            return recording.record(jobs, cursor)
        with self.observed(pushes.plain(jobs)) as plain:
            if not isinstance(cursor, AsyncConnection | AsyncCursor):
                from chancy_runtime.jobs import transactions

                return await transactions.push(self, cursor, plain)
            cursor = pushes.cursor_of(cursor)
            if not pushes.fit_one_statement(plain):
                return await super().push_many_ex(cursor, plain)
            references = await pushes.push(self.prefix, plain, cursor)
            queues = dict.fromkeys(job.queue for job in plain)
            events = [("queue.pushed", {"q": queue}) for queue in queues]
            await self.notify_many(cursor, events)
            return references

    def sync_push_many_ex(
        self, cursor: "transactions.SyncTransaction", jobs: Sequence[pushes.AnyJob]
    ) -> list[Reference]:
        """Does what push_many_ex() does, without asyncio.

        Args:
            cursor: A cursor or connection of psycopg, or a Session or Connection of
                SQLAlchemy.

        Raises:
            TypeError: `cursor` is none of these.
        """
        if not self._sends:
            return recording.record(jobs, cursor)
        with self.observed(pushes.plain(jobs)) as plain:
            if not isinstance(cursor, psycopg.Connection | Cursor):
                from chancy_runtime.jobs import transactions

                return transactions.sync_push(self, cursor, plain)
            cursor = pushes.sync_cursor_of(cursor)
            if not pushes.fit_one_statement(plain):
                return super().sync_push_many_ex(cursor, plain)
            references = pushes.sync_push(self.prefix, plain, cursor)
            for queue in dict.fromkeys(job.queue for job in plain):
                self.sync_notify(cursor, "queue.pushed", {"q": queue})
            return references

    def observed(self, jobs: list[Job]) -> AbstractContextManager[list[Job]]:
        """Returns the context manager for a push; it yields the jobs to push."""
        return observed_push(self.plugins.values(), jobs)

    async def cancel_job_ex(self, cursor: AsyncCursor[DictRow], ref: Reference) -> int:
        """Cancels a job that waits or runs; a job that has ended keeps its state.

        Chancy 0.26 marks a job that has just succeeded as failed.

        Returns:
            How many jobs it has cancelled: 0 or 1.
        """
        await cursor.execute(statement(_CANCEL, self.prefix), [ref.identifier])
        return cursor.rowcount

    # --- reports ---------------------------------------------------------------------

    def _scope(self, **tags: str) -> AbstractContextManager[object]:
        for plugin in self.plugins.values():
            if isinstance(plugin, _TagsEvents):
                return plugin.scope(**tags)
        return nullcontext()

    def _name_of(self, task: "asyncio.Task[object] | None") -> str:
        """Names the job that a task of the event loop runs."""
        for worker in list(self.workers):
            for executor in list(worker.executors.values()):
                job = getattr(executor, "jobs", {}).get(task)
                if isinstance(job, QueuedJob):
                    return f"the job {job.func} ({job.id})"
        return "code outside of a job"


class _Quiet(logging.Filter):
    """Keeps each failed attempt of the pool out of the log; the monitor reports it once."""

    def __init__(self, pool: str, monitor: Monitor) -> None:
        super().__init__()
        self._pool = pool
        # The logger outlives the pool.
        self._monitor = ref(monitor)

    def filter(self, record: logging.LogRecord) -> bool:
        match record.args:
            case (self._pool, BaseException() as error):
                if monitor := self._monitor():
                    monitor.connect_error = " ".join(str(error).split())
                return False
            case (Connection(), *_):
                return False
            case (str() as name, *_) if name.startswith(self._pool):
                return False
        return True
