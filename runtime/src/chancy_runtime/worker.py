"""Chancy's Worker, with its tasks supervised and its stop bounded."""

import asyncio
import functools
import logging
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import (
    AsyncExitStack,
    asynccontextmanager,
    nullcontext,
)
from datetime import datetime
from typing import Any, Never
from uuid import UUID

import psycopg
from chancy import Queue, QueuedJob
from chancy.errors import MigrationsNeededError
from chancy.hub import Event
from chancy.plugin import Plugin, PluginScope
from psycopg import AsyncConnection, sql
from psycopg.errors import LockNotAvailable, QueryCanceled
from psycopg.rows import DictRow, TupleRow, dict_row

from chancy_runtime.app import Chancy
from chancy_runtime.compat import TASK_OF_LOOP, OpenWorker
from chancy_runtime.errors import WorkersError, refuse_arguments
from chancy_runtime.execution.feeder import Feeder
from chancy_runtime.execution.hooks import run_updated_hooks, with_hook
from chancy_runtime.jobs import results
from chancy_runtime.jobs.claims import Claims
from chancy_runtime.jobs.registered import Registered
from chancy_runtime.listening import (
    listen,
    listen_at_start,
    pass_on,
    renew_when_silent,
)
from chancy_runtime.modes import Mode, this_process
from chancy_runtime.postgres.clock import ServerClock
from chancy_runtime.postgres.connecting import reason_of
from chancy_runtime.postgres.connections import autocommit, change_settings
from chancy_runtime.settings import Settings
from chancy_runtime.supervision.budget import UNDO_SECONDS
from chancy_runtime.supervision.monitor import Monitor
from chancy_runtime.supervision.supervisor import Retry, Supervisor
from chancy_runtime.supervision.tasks import finish

_SAVE_TIMEOUT = 3
_SAVE_INTERVAL = 0.02
_LARGEST_BATCH = 1000
_NO_LONG_WAIT = {"lock_timeout": "1s"}
_OF_CHANCY = ("queues", "updates", "heartbeat", "notifications")
_PAUSES = (
    "leave it out; attempts go on for as long as it takes, and the pauses between them "
    "grow to a minute, to 5 s in an outage"
)
# Arguments of Chancy's Worker that are settings of the service, or have no effect.
_REPLACED = {
    "heartbeat_timeout": "pass Settings(heartbeat_timeout=…) to Chancy",
    "heartbeat_poll_interval": "pass Settings(heartbeat_timeout=…) to Chancy; it is a "
    "third of that",
    "shutdown_timeout": "pass Settings(shutdown_grace=…) to Chancy",
    "backoff_initial": _PAUSES,
    "backoff_max": _PAUSES,
    "backoff_max_retries": _PAUSES,
}


class Worker(OpenWorker):
    """A Worker of the service: takes the jobs of its queues and runs them.

    It keeps going where Chancy 0.26 ends quietly: each of its tasks, plugins
    included, is started again after an error; it survives an outage of the database; and
    results wait until they can be saved. A stop takes no longer than the setting
    `shutdown_grace`. Jobs that have not ended by then go back to their queues with no
    attempt used up.

    Args:
        chancy: The service's Chancy; the Worker uses its settings.
        tags: The Worker's tags. It takes a tagged queue if one of the queue's tags, which
            are regular expressions, matches one of them.
        worker_id: Identifies it among all workers of the service; a UUID by default.
        queue_change_poll_interval: Seconds between two reads of the rows of the queues;
            changes made through Chancy arrive at once as notifications.
        register_signal_handlers: False where a server such as uvicorn has its own: in
            uvicorn Chancy's handlers would keep SIGTERM from ending the server.
        process: The kind of process in which it starts: "api" for the process of the API,
            "own" for that of the command `run`. By default it starts in both.
        replaced: Chancy's other arguments are refused. Settings replace shutdown_timeout
            (`shutdown_grace`) and heartbeat_timeout; heartbeat_poll_interval is a third of
            that. The pauses between attempts (backoff_*) cannot be changed.

    Attributes:
        send_outgoing_interval: Seconds in which results are collected before they are
            saved together: 0.02 (1 in Chancy).

    Raises:
        WorkersError: One of Chancy's other arguments was passed, `process` has another
            value, or `chancy` is not of this library.
    """

    chancy: Chancy

    def __init__(
        self,
        chancy: Chancy,
        *,
        tags: set[str] | None = None,
        worker_id: str | None = None,
        queue_change_poll_interval: int = 10,
        register_signal_handlers: bool = True,
        process: str | None = None,
        **replaced: Never,
    ) -> None:
        refuse_arguments("Worker", replaced, _REPLACED)
        if not isinstance(chancy, Chancy):
            raise WorkersError(
                f"a Worker of chancy_runtime cannot run on {type(chancy).__module__}."
                f"{type(chancy).__qualname__}: import Chancy from chancy_runtime too"
            )
        if process not in (None, "api", "own"):
            raise WorkersError(
                f"process of a Worker is {process!r}, but must be api or own: correct it "
                f"in {chancy.package}"
            )
        super().__init__(
            chancy,
            worker_id=worker_id,
            queue_change_poll_interval=queue_change_poll_interval,
            tags=tags,
            register_signal_handlers=register_signal_handlers,
            shutdown_timeout=chancy.settings.shutdown_grace,
            heartbeat_timeout=chancy.settings.heartbeat_timeout,
            heartbeat_poll_interval=chancy.settings.heartbeat_timeout // 3,
        )
        self.tags = frozenset(tags or ())
        self._process = process
        self._is_elsewhere = False
        self.manager = Supervisor(chancy.monitor, self._find_task)
        self.send_outgoing_interval = _SAVE_INTERVAL
        self.last_heartbeat = time.monotonic()
        self.fetching_since: dict[str, float] = {}
        self.cancelled: set[UUID | None] = set()
        self._plugins_to_start: list[Plugin] = []
        self._listener: AsyncConnection[TupleRow] | None = None
        self._unsaved: set[UUID | None] = set()
        self._has_unsaved = asyncio.Event()
        self._in_doubt_until = 0.0
        self._clock = ServerClock()
        self._most_saved = _LARGEST_BATCH
        self.queue_wake_events = _WakeEvents(asyncio.Event)
        self._feeding: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def __setattr__(self, name: str, value: object) -> None:
        # The first assignment is made by Chancy's __init__, to its default.
        if name.startswith("backoff_") and hasattr(self, name):
            refuse_arguments("Worker", [name], _REPLACED)
        super().__setattr__(name, value)

    # --- for the layers below --------------------------------------------------------

    @property
    def app(self) -> Chancy:
        return self.chancy

    @property
    def log(self) -> logging.Logger:
        return self.chancy.log

    @property
    def monitor(self) -> Monitor:
        return self.chancy.monitor

    @property
    def settings(self) -> Settings:
        return self.chancy.settings

    @property
    def registered(self) -> Registered:
        return self.chancy.registered

    @property
    def queues(self) -> Mapping[str, Queue]:
        """The queues that the Worker serves now, by name."""
        return {queue.name: queue for queue in self}

    @functools.cached_property
    def claims(self) -> Claims:
        """The jobs that the Worker has taken; created late: worker_id may change before."""
        return Claims(
            prefix=self.chancy.prefix,
            worker_id=self.worker_id,
            log=self.log,
            held=self.held_claims,
            wake=lambda name: self.queue_wake_events[name].set(),
        )

    def server_time(self) -> datetime:
        return self._clock.now()

    @property
    def settling_time(self) -> float:
        """Seconds within which every live Worker announces itself."""
        return 1.2 * self.heartbeat_poll_interval

    @property
    def is_late(self) -> bool:
        """Whether this Worker's last heartbeat is older than half of heartbeat_timeout.

        Two more heartbeats would have to fail before others take it for dead.
        """
        return time.monotonic() - self.last_heartbeat > self.heartbeat_timeout / 2

    # --- start and stop --------------------------------------------------------------

    async def start(self) -> None:
        """Starts all tasks; a start that fails leaves none running.

        Nothing starts in a process that the Worker is not for, or that only pushes.

        Raises:
            WorkersError: The database refused, gave no answer in time, or has no
                connection left for LISTEN.
        """
        runs = this_process().runs(process=self._process, tags=self.tags)
        if self.chancy.mode is not Mode.RUN or not runs:
            self._is_elsewhere = True
            self.chancy.elsewhere.append(self)
            return
        try:
            async with self.chancy.step_of_start():
                await self._start()
        except BaseException:
            await finish(self._undo_start())
            raise
        self.chancy.workers.append(self)
        self.chancy.budget.renew()

    async def _start(self) -> None:
        if not await self.chancy.is_up_to_date():
            raise MigrationsNeededError
        if self.chancy.notifications:
            self._listener = await listen_at_start(self.chancy)
        async with self.chancy.pool.connection() as connection:
            # Before the first job: Recovery takes the jobs of unknown workers.
            await self.announce_worker(connection)
        self._plugins_to_start = self._plugins
        for plugin in self._plugins:
            if not hasattr(plugin, "wakeup_signal"):  # Without Plugin.__init__().
                plugin.wakeup_signal = asyncio.Event()
        self.hub.on("job.cancelled", self._note_cancelled)
        await super().start()
        if self.chancy.notifications:
            self.manager.add("listening", self._renew_listening())

    @property
    def _plugins(self) -> list[Plugin]:
        found = self.chancy.plugins.values()
        return [each for each in found if each.get_scope() == PluginScope.WORKER]

    async def _undo_start(self) -> None:
        try:
            async with asyncio.timeout(UNDO_SECONDS):
                await self.stop_within(0)
        except TimeoutError:
            await self.manager.cancel_all()
        finally:
            if self._listener is not None:
                await self._listener.close()

    async def stop(self, *, timeout: float | None = None) -> bool:
        return self._is_elsewhere or await super().stop(timeout=timeout)

    async def stop_within(self, timeout: float) -> bool:
        """Stops within the grace; jobs that did not end go back to their queues."""
        drained = await self.drain(timeout)
        try:
            await self._save_the_last()
            await self._stop_plugins()
            # A Worker that never started may belong to a Chancy that was never entered.
            is_known = self.chancy.is_open or self in self.chancy.workers
            if is_known and not self.monitor.database_is_lost:
                async with asyncio.timeout(_SAVE_TIMEOUT):
                    await self._sign_off()
        except (psycopg.Error, TimeoutError) as error:
            if self in self.chancy.workers:
                self.chancy.has_unsaved_results = True
                self.log.warning(
                    "the database did not take the worker's last results (%s): jobs whose "
                    "results are not saved run again after the heartbeat timeout",
                    reason_of(error),
                )
            return False
        finally:
            if self in self.chancy.workers:
                self.chancy.workers.remove(self)
        event = "worker.stopped" if drained else "worker.shutdown_timeout"
        await self.hub.emit(event, {"worker": self})
        return drained

    async def _save_the_last(self) -> None:
        """Saves the last results; the stop goes on after an error of a plugin's hook."""
        try:
            await self.flush()
        except (psycopg.Error, TimeoutError):
            raise
        except Exception as error:  # noqa: BLE001  # whatever a plugin raises
            self.monitor.report("saving the last results failed", error, task="updates")

    async def _stop_plugins(self) -> None:
        """Calls each plugin's on_worker_stopped, whatever happens in that of another.

        A hook can raise an error, wait for ever, or wait for a task that it has cancelled.
        """
        stops = {
            asyncio.create_task(each.on_worker_stopped(worker=self)): type(
                each
            ).__name__
            for each in self._plugins
        }
        if not stops:
            return
        try:
            await asyncio.wait(stops, timeout=_SAVE_TIMEOUT)
            for stop, name in stops.items():
                if error := _error_of(stop):
                    message = f"{name}.on_worker_stopped failed"
                    self.monitor.report(message, error, task=name)
        finally:
            for stop in stops:
                stop.cancel()

    async def _sign_off(self) -> None:
        async with (
            self.chancy.pool.connection() as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            queues = await self.claims.give_back(cursor)
            await cursor.execute(
                sql.SQL("DELETE FROM {} WHERE worker_id = %s").format(
                    sql.Identifier(f"{self.chancy.prefix}workers")
                ),
                [self.worker_id],
            )
            for queue in queues:
                await self.chancy.notify(cursor, "queue.pushed", {"q": queue})

    # --- tasks -----------------------------------------------------------------------

    def _find_task(self, name: str) -> Callable[[], Coroutine[Any, Any, None]] | None:
        """Returns a function that starts a task again, or None if it cannot be started."""
        for plugin in self._plugins_to_start:
            if type(plugin).__name__ == name:
                self._plugins_to_start.remove(plugin)
                return functools.partial(plugin.run, self, self.chancy)
        if name.startswith("queue_"):
            return functools.partial(self._feed, name.removeprefix("queue_"))
        if name == "listening":
            return self._renew_listening
        return functools.partial(self.loop, name) if name in _OF_CHANCY else None

    async def feed_queue(self, queue: Queue) -> None:
        await self._feed(queue.name)

    async def _feed(self, name: str) -> None:
        """Feeds a queue; a queue that was removed and added again waits for its old jobs."""
        async with self._feeding[name]:
            await Feeder(self, name).run()

    async def save_results(self) -> None:
        """Saves results a moment after they come, and waits for them without polling."""
        retry = self.database_retry("outgoing job updates")
        self._has_unsaved.set()
        while True:
            await self._has_unsaved.wait()
            await asyncio.sleep(self.send_outgoing_interval)
            self._has_unsaved.clear()
            try:
                await self.flush()
                retry.reset()
            except retry.errors as error:
                await retry.wait(error)
                self._has_unsaved.set()

    async def hear_events(self) -> None:
        """Listens for notifications, first on the connection that the start opened."""
        retry = self.database_retry("notifications listener")

        def started() -> None:
            self._listener = None
            self.is_listening()
            self.log.info("Started listening for notifications.")
            retry.reset()

        while True:
            try:
                connection = self._listener or await listen(self.chancy)
                await pass_on(connection, self.hub, started)
            except retry.errors as error:
                await retry.wait(error)

    async def _renew_listening(self) -> None:
        await renew_when_silent(
            self.chancy,
            self,
            self.hub,
            patience=1.5 * self.heartbeat_poll_interval,
            renew=functools.partial(self.renew, "notifications"),
        )

    async def renew(self, name: str) -> None:
        """Ends one of Chancy's own tasks and starts it again."""
        await self.manager.cancel(name)
        self.manager.add(name, self.loop(name))

    def database_retry(self, name: str) -> Retry:
        retry = Retry(TASK_OF_LOOP.get(name, name), self.monitor)
        if retry.name == "notifications":
            # This worker got no notification of jobs pushed during the outage.
            retry.then = self._wake_queues
        elif retry.name == "updates":
            # Chancy 0.26 logs the errors that it does not retry, but without a tag.
            retry.errors = (Exception,)
        return retry

    def _wake_queues(self) -> None:
        for event in self.queue_wake_events.values():
            event.set()

    async def announce_worker(self, conn: psycopg.AsyncConnection[Any]) -> None:
        await self._clock.read(conn)
        await super().announce_worker(conn)
        if time.monotonic() < self._in_doubt_until:
            # A lock on the jobs must not delay the heartbeat: the next one tries again.
            try:
                async with (
                    conn.transaction(),
                    conn.cursor(row_factory=dict_row) as cursor,
                ):
                    await change_settings(cursor, _NO_LONG_WAIT, for_transaction=True)
                    await self._give_back_lost_claims(cursor)
            except (LockNotAvailable, QueryCanceled):
                self.claims_are_in_doubt()
        if self.is_late:
            # What delayed this heartbeat may delay those of others.
            self.monitor.calm_since = time.monotonic()
        self.last_heartbeat = time.monotonic()

    # --- jobs ------------------------------------------------------------------------

    def _note_cancelled(self, event: Event) -> None:
        """Remembers the claims of cancelled jobs: their end is not a failure."""
        for executor in self.executors.values():
            for job in executor.get_running_jobs():
                if str(job.id) == event.body.get("j"):
                    self.cancelled.add(job.claim_id)

    def claims_are_in_doubt(self) -> None:
        """Remembers that the answer to a claim was lost; heartbeats then give back its jobs."""
        self._in_doubt_until = time.monotonic() + 2 * self.heartbeat_timeout

    async def _give_back_lost_claims(
        self, cursor: psycopg.AsyncCursor[DictRow]
    ) -> None:
        """Gives back the jobs of claims whose answer was lost.

        A claim that still waits for its answer may have taken jobs too, but only after it
        was sent.
        """
        now = time.monotonic()
        queues = await self.claims.give_back(
            cursor,
            running=self.held_claims(),
            older_than=now - min([now, *self.fetching_since.values()]),
        )
        for queue in queues:
            # Delivered when the transaction is committed, and not before.
            await self.chancy.notify(cursor, "queue.pushed", {"q": queue})

    def held_claims(self) -> list[UUID | None]:
        """Returns the claims of jobs that run here or whose results are not saved yet."""
        running = [
            job.claim_id
            for executor in self.executors.values()
            for job in executor.get_running_jobs()
        ]
        return [*running, *self._unsaved]

    async def fetch_jobs(
        self, queue: Queue, conn: psycopg.AsyncConnection[Any], *, up_to: int = 1
    ) -> list[QueuedJob]:
        return await self.claims.fetch(queue, conn, up_to=up_to)

    async def leave_to_later(self, job: QueuedJob) -> bool:
        """Leaves a job whose function this version does not have to a later deployment.

        Returns:
            Whether there is a later deployment; otherwise no process has the function.
        """
        retry = self.database_retry("leave_to_later")
        while True:
            try:
                async with (
                    self.chancy.pool.connection() as connection,
                    connection.cursor(row_factory=dict_row) as cursor,
                ):
                    if outdated := await self.chancy.deployment.is_outdated(cursor):
                        await self.claims.postpone(cursor, job)
            except retry.errors as error:
                await retry.wait(error)
                continue
            retry.reset()
            if outdated:
                self.log.info(
                    "left the job %s (%s) to a later deployment", job.id, job.func
                )
            return outdated

    async def queue_update(self, update: QueuedJob) -> bool:
        if update.errors or update.meta:
            update = results.storable(update)
        accepted: bool = await super().queue_update(update)
        if accepted:
            self._unsaved.add(update.claim_id)
            self._has_unsaved.set()
        return accepted

    async def flush(self) -> None:
        saved = set(self._unsaved)
        async with asyncio.timeout(_SAVE_TIMEOUT if self.gives_back else None):
            await super().flush()
        self._unsaved -= saved

    async def save_batch(
        self, batch: list[QueuedJob]
    ) -> tuple[Sequence[QueuedJob], list[QueuedJob]]:
        while len(batch) < _LARGEST_BATCH and not self.outgoing.empty():
            batch.append(self.outgoing.get_nowait())
        now = batch[: self._most_saved]
        try:
            saved = await self._save(now)
        except QueryCanceled:
            # The server was too slow for so many results, or waited for a lock.
            self._most_saved = max(1, len(now) // 2)
            raise
        self._most_saved = min(2 * self._most_saved, _LARGEST_BATCH)
        return saved, batch[len(now) :]

    async def _save(self, batch: list[QueuedJob]) -> Sequence[QueuedJob]:
        hooks = with_hook(
            "on_jobs_updated_in_transaction", self.chancy.plugins.values()
        )
        async with (
            autocommit(self.chancy.pool) as connection,
            connection.transaction() if hooks else nullcontext(),
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            saved = await results.save(self.chancy.prefix, batch, cursor)
            for plugin in hooks if saved else ():
                await plugin.on_jobs_updated_in_transaction(
                    worker=self, jobs=saved, cursor=cursor
                )
        return saved

    async def announce_saved(self, saved: Sequence[QueuedJob]) -> None:
        if hooks := with_hook("on_job_updated", self.chancy.plugins.values()):
            for update in saved:
                await run_updated_hooks(
                    hooks, job=update, worker=self, report=self.monitor.report
                )


def _error_of(stop: "asyncio.Task[None]") -> BaseException | None:
    if not stop.done():
        return TimeoutError(f"it did not end within {_SAVE_TIMEOUT} s")
    return asyncio.CancelledError() if stop.cancelled() else stop.exception()


class _WakeEvents(defaultdict[str, asyncio.Event]):
    """The events that wake the feeders of queues; an event that is removed is also set.

    Chancy 0.26 removes the event of a queue that the worker leaves; its feeder would
    notice only at the next poll.
    """

    def pop(self, *args: Any) -> Any:
        event = super().pop(*args)
        if isinstance(event, asyncio.Event):
            event.set()
        return event


@asynccontextmanager
async def together(*workers: Worker) -> AsyncIterator[None]:
    """Runs several Workers of one Chancy, which stop at the same time.

    If they stopped one after the other, the last would take new jobs while the first drain.
    """
    async with AsyncExitStack() as stack:
        started: list[Worker] = []
        stack.push_async_callback(_stop_together, started)
        for worker in workers:
            await worker.start()
            started.append(worker)
        yield


async def _stop_together(workers: list[Worker]) -> None:
    await asyncio.gather(*(worker.stop() for worker in workers))
