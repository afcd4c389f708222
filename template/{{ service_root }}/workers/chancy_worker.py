"""Chancy's Worker, with its tasks supervised and its stop bounded.

The only module that reaches into Chancy's private names.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any
from uuid import UUID

import chancy
import psycopg
from chancy import Queue, QueuedJob
from chancy.executors.base import Executor
from chancy.plugins import cron
from psycopg import AsyncConnection, sql
from psycopg.rows import DictRow, TupleRow, dict_row

from . import chancy_claims, chancy_rate_limit, chancy_results
from .chancy_app import Chancy
from .chancy_connections import DroppableConnection, autocommit
from .chancy_database import reason_of
from .chancy_deployment import is_outdated
from .chancy_errors import WorkersError
from .chancy_executors import create_executor
from .chancy_hooks import with_hook
from .chancy_jobs import UNREADABLE
from .chancy_queues import check_numbers, resume_when_due
from .chancy_supervisor import Retry, Supervisor
from .chancy_tasks import backoff

# The first time after another at which a cron expression fires in a time zone.
next_run = cron._next_run

_START_TIMEOUT = 8
_LISTEN_TIMEOUT = 5
_LISTEN_INTERVAL = 0.2
_SAVE_TIMEOUT = 3
_SAVE_INTERVAL = 0.02
_LARGEST_BATCH = 1000
_LARGEST_CLAIM = 500
_DRAIN_INTERVAL = 0.02
_LONGEST_PAUSE = 60.0
# What Chancy 0.26 calls its loops where it retries them.
_TASK_OF_LOOP = {
    "queue maintenance": "queues",
    "outgoing job updates": "updates",
    "notifications listener": "notifications",
}


class Worker(chancy.Worker):
    """A Worker of the service.

    Args:
        chancy: The service's Chancy, whose settings hold here too.
        tags: Which tagged queues this one takes.
        register_signal_handlers: False where a server such as uvicorn has its own.
    """

    chancy: Chancy

    def __init__(
        self,
        chancy: Chancy,
        *,
        tags: set[str] | None = None,
        register_signal_handlers: bool = True,
    ) -> None:
        super().__init__(
            chancy,
            tags=tags,
            register_signal_handlers=register_signal_handlers,
            shutdown_timeout=chancy.settings.shutdown_grace,
            heartbeat_timeout=chancy.settings.heartbeat_timeout,
            heartbeat_poll_interval=chancy.settings.heartbeat_timeout // 3,
        )
        self.manager = Supervisor(chancy.monitor, self._task)
        self.last_heartbeat = time.monotonic()
        self.settling_time = 1.2 * self.heartbeat_poll_interval
        self._listener: AsyncConnection[TupleRow] | None = None
        self._unsaved: set[UUID | None] = set()
        self._has_unsaved = asyncio.Event()
        self._fetching_since: dict[str, float] = {}
        self._in_doubt_until = 0.0

    # --- start and stop --------------------------------------------------------------

    async def start(self) -> None:
        """Starts all tasks; a start that fails leaves none behind.

        Raises:
            WorkersError: The database gives no connection for LISTEN.
        """
        self._listener = await self._first_listener()
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                async with self.chancy.pool.connection() as connection:
                    # Before the first job: Recovery takes those of unknown workers.
                    await self.announce_worker(connection)
                await super().start()  # type: ignore[no-untyped-call]
                self.manager.add("listening", self._maintain_listening())
        except BaseException as error:
            self.shutdown_timeout = 0
            await self.stop()
            if self._listener is not None:
                await self._listener.close()
            if isinstance(error, TimeoutError):
                monitor = self.chancy.monitor
                raise WorkersError(
                    f"the database {monitor.database} did not let a worker start in "
                    f"{_START_TIMEOUT} s ({monitor.connect_error or 'no answer'}): look "
                    "at its log and its load, and start again"
                ) from error
            raise
        self.chancy.workers.append(self)
        self.chancy.has_started()
        for plugin in self.chancy.plugins.values():
            # Not one poll later: a service may not live that long.
            plugin.wakeup_signal.set()

    @property
    def gives_back(self) -> bool:
        """Whether the grace is over: what still runs goes back to its queue."""
        return not self._accepting_updates

    async def _stop(self, timeout: float) -> bool:
        """Stops within the grace; jobs that did not end go back to their queues."""
        try:
            drained = await super()._stop(timeout)
            if not self.chancy.monitor.database_is_lost:
                async with asyncio.timeout(_SAVE_TIMEOUT):
                    await self._sign_off()
        except (psycopg.Error, TimeoutError) as error:
            if self in self.chancy.workers:
                self.chancy.log.warning(
                    "the database did not take the worker's last word (%s): what it had "
                    "not saved runs again after the heartbeat timeout",
                    reason_of(error),
                )
            return False
        finally:
            if self in self.chancy.workers:
                self.chancy.workers.remove(self)
        return drained

    async def _sign_off(self) -> None:
        async with (
            self.chancy.pool.connection() as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            queues = await chancy_claims.give_back(cursor, self)
            await cursor.execute(
                sql.SQL("DELETE FROM {} WHERE worker_id = %s").format(
                    sql.Identifier(f"{self.chancy.prefix}workers")
                ),
                [self.worker_id],
            )
            for queue in queues:
                await self.chancy.notify(cursor, "queue.pushed", {"q": queue})

    async def flush(self) -> None:
        """Chancy's flush, which saves a batch in one statement."""
        saved = set(self._unsaved)
        async with asyncio.timeout(_SAVE_TIMEOUT if self.gives_back else None):
            async with self._outgoing_lock:
                while self._pending_updates or not self.outgoing.empty():
                    await self._save(self._pending_updates)
        self._unsaved -= saved

    async def _save(self, batch: list[QueuedJob]) -> None:
        """Saves a batch; one that fails stays for the next attempt."""
        while len(batch) < _LARGEST_BATCH and not self.outgoing.empty():
            batch.append(self.outgoing.get_nowait())
        plugins = self.chancy.plugins.values()
        hooks = with_hook("on_jobs_updated_in_transaction", plugins)
        async with (
            autocommit(self.chancy.pool) as connection,
            connection.transaction() if hooks else nullcontext(),
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            saved = await chancy_results.save(self.chancy, batch, cursor)
            for plugin in hooks if saved else ():
                await plugin.on_jobs_updated_in_transaction(
                    worker=self, jobs=saved, cursor=cursor
                )
        self._pending_updates = []
        if hooks := with_hook("on_job_updated", plugins):
            for update in saved:
                for plugin in hooks:
                    await plugin.on_job_updated(job=update, worker=self)

    # --- tasks -----------------------------------------------------------------------

    def _task(self, name: str) -> Coroutine[Any, Any, None]:
        """A new coroutine for a task that ended."""
        for plugin in self.chancy.plugins.values():
            if type(plugin).__name__ == name:
                plugin.wakeup_signal.set()
                return plugin.run(self, self.chancy)
        if name.startswith("queue_"):
            return self._maintain_queue(Queue(name.removeprefix("queue_")))
        tasks: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "queues": self._maintain_queues,
            "updates": self._maintain_updates,
            "heartbeat": self._maintain_heartbeat,
            "notifications": self._maintain_notifications,
            "listening": self._maintain_listening,
        }
        return tasks[name]()

    async def _first_listener(self) -> AsyncConnection[TupleRow]:
        """A connection that listens, or one line; Chancy 0.26 waits for one for ever."""
        reason = "no answer"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LISTEN_TIMEOUT):
                while True:
                    try:
                        return await self._listen()
                    except psycopg.OperationalError as error:
                        # Connections of the checks may still be about to end.
                        reason = reason_of(error)
                        await asyncio.sleep(_LISTEN_INTERVAL)
        raise WorkersError(
            f"the database {self.chancy.monitor.database} has no connection left for "
            f"LISTEN ({reason}): each Worker needs one beside CHANCY_MAX_POOL_SIZE, so "
            "raise the database's limit or the pooler's pool size, or lower "
            "CHANCY_MIN_POOL_SIZE"
        )

    async def _listen(self) -> AsyncConnection[TupleRow]:
        connection = await DroppableConnection.connect(self.chancy.dsn, autocommit=True)
        try:
            channel = sql.Identifier(f"{self.chancy.prefix}events")
            await connection.execute(sql.SQL("LISTEN {}").format(channel))
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _maintain_updates(self) -> None:
        """Saves what has ended a moment ago, and waits without a poll for the next."""
        retry = self.database_retry("outgoing job updates")
        self._has_unsaved.set()
        while True:
            await self._has_unsaved.wait()
            await asyncio.sleep(_SAVE_INTERVAL)
            self._has_unsaved.clear()
            try:
                await self.flush()
                retry.reset()
            except retry.errors as error:
                await retry.wait(error)
                self._has_unsaved.set()

    async def _maintain_notifications(self) -> None:
        """Chancy's loop, which begins with the connection that the start made sure of."""
        retry = self.database_retry("notifications listener")
        while True:
            try:
                async with self._listener or await self._listen() as connection:
                    self._listener = None
                    self._notifications_ready_event.set()
                    self.chancy.log.info("Started listening for notifications.")
                    retry.reset()
                    async for notification in connection.notifies():
                        event = json.loads(notification.payload)
                        await self.hub.emit(event.pop("t"), event)
            except retry.errors as error:
                await retry.wait(error)

    async def _maintain_listening(self) -> None:
        """Renews LISTEN when its connection has gone silent: heartbeats come through it."""
        monitor, patience = self.chancy.monitor, 1.5 * self.heartbeat_poll_interval
        while True:
            since = time.monotonic()
            heard = await self.hub.wait_for("worker.announced", timeout=patience)
            announced = since < self.last_heartbeat < time.monotonic() - 1
            if not heard and announced and monitor.has_been_calm_for(patience):
                self.chancy.log.warning("LISTEN has gone silent and is set up again")
                await self.manager.cancel("notifications")
                self.manager.add("notifications", self._task("notifications"))

    def database_retry(self, name: str) -> Retry:
        retry = Retry(_TASK_OF_LOOP.get(name, name), self.chancy.monitor)
        if retry.name == "notifications":
            # Nobody told this worker of the jobs that were pushed meanwhile.
            retry.then = self._wake_queues
        elif retry.name == "updates":
            # Chancy 0.26 logs what it does not retry itself, without a tag.
            retry.errors = (Exception,)
        return retry

    def _wake_queues(self) -> None:
        for event in self.queue_wake_events.values():
            event.set()

    async def announce_worker(self, conn: psycopg.AsyncConnection[Any]) -> None:
        await super().announce_worker(conn)
        if time.monotonic() < self._in_doubt_until:
            async with conn.cursor(row_factory=dict_row) as cursor:
                await self._give_back_unheard_of(cursor)
        self.last_heartbeat = time.monotonic()

    async def _give_back_unheard_of(self, cursor: psycopg.AsyncCursor[DictRow]) -> None:
        """Gives back what was taken by a fetch whose answer got lost.

        A fetch that is on its way may have taken jobs too, but none before it began.
        """
        now = time.monotonic()
        queues = await chancy_claims.give_back(
            cursor,
            self,
            running=self._claims(),
            older_than=now - min([now, *self._fetching_since.values()]),
        )
        for queue in queues:
            # Heard when the transaction is committed, and not before.
            await self.chancy.notify(cursor, "queue.pushed", {"q": queue})

    def _claims(self) -> list[UUID | None]:
        """The claims of the jobs that run here or whose results are not saved yet."""
        running = [
            job.claim_id
            for executor in self.executors.values()
            for job in executor.get_running_jobs()
        ]
        return [*running, *self._unsaved]

    # --- jobs ------------------------------------------------------------------------

    async def _maintain_queue(self, queue: Queue) -> None:
        """Chancy's loop, but what goes wrong in it leaves the running jobs alone.

        Chancy 0.26 cancels them, and so fails them, when a poll loses its connection.
        """
        while current := self._queues.get(queue.name):
            check_numbers(current)
            async with AsyncExitStack() as stack:
                stack.callback(self._executors.pop, current.name, None)
                executor = await stack.enter_async_context(
                    await create_executor(self, current)
                )
                self._executors[current.name] = executor
                await self._emit("started", current, executor)
                await self._serve(current, executor)
                await self._emit(
                    "updated" if current.name in self._queues else "removed",
                    *(current, executor),
                )
        self.chancy.monitor.failing.pop(f"queue_{queue.name}", None)

    async def _serve(self, queue: Queue, executor: Executor) -> None:
        """Feeds an executor until its queue needs another one, and its jobs have ended.

        Chancy 0.26 waits for the end of all jobs at any change, a pause included.
        """
        retry = self.database_retry(f"queue_{queue.name}")
        failures, more = 0, True
        while True:
            # Otherwise the server looks for the next ones while these run.
            if not more:
                await self._until_woken(queue)
            current = self._queues.get(queue.name)
            if current is None or _executor_of(current) != _executor_of(queue):
                while len(executor):
                    await asyncio.sleep(_DRAIN_INTERVAL)
                return
            queue = executor.queue = current
            try:
                more = False
                more = await self._feed(queue, executor)
                retry.reset()
                failures = 0
            except retry.errors as error:
                self._in_doubt_until = time.monotonic() + 2 * self.heartbeat_timeout
                await self._unless_stopping(retry.wait(error))
                self.queue_wake_events[queue.name].set()
            except Exception as error:  # noqa: BLE001  # running jobs go on
                self.chancy.monitor.failed(retry.name, error)
                await self._unless_stopping(
                    asyncio.sleep(backoff(failures, _LONGEST_PAUSE))
                )
                failures += 1
                self.queue_wake_events[queue.name].set()

    async def _unless_stopping(self, pause: Coroutine[Any, Any, None]) -> None:
        """Waits for the end of a pause, or for the stop of the worker."""
        tasks = [
            asyncio.create_task(pause),
            asyncio.create_task(self.shutdown_event.wait()),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def _until_woken(self, queue: Queue) -> None:
        try:
            async with asyncio.timeout(max(1, queue.polling_interval or 1)):
                await self.queue_wake_events[queue.name].wait()
        except TimeoutError:
            pass
        self.queue_wake_events[queue.name].clear()
        # A job that just ended leaves its executor one turn of the loop later.
        await asyncio.sleep(0)

    async def _feed(self, queue: Queue, executor: Executor) -> bool:
        """Takes jobs for the free slots; returns whether there may be more for others."""
        if queue.state == Queue.State.PAUSED:
            if queue.resume_at:
                await resume_when_due(self.chancy, queue.name)
            return False
        if (free := executor.free_slots) <= 0:
            await self._emit("full", queue, executor)
            return False
        up_to = min(free, _LARGEST_CLAIM)
        self._fetching_since[queue.name] = time.monotonic()
        try:
            async with autocommit(self.chancy.pool) as connection:
                jobs = await self.fetch_jobs(queue, connection, up_to=up_to)
            for job in jobs:
                self.chancy.log.debug(
                    "Pulled %s (%s) for queue %s", job.id, job.func, job.queue
                )
                try:
                    await executor.push(job)
                except Exception as error:  # noqa: BLE001  # the row says it
                    await executor.on_job_completed(job=job, exc=error)
        finally:
            del self._fetching_since[queue.name]
        return up_to < free and up_to == len(jobs)

    async def fetch_jobs(
        self, queue: Queue, conn: psycopg.AsyncConnection[Any], *, up_to: int = 1
    ) -> list[QueuedJob]:
        if queue.rate_limit is None:
            return await self._take(queue, conn, up_to)
        async with conn.transaction():
            free = await chancy_rate_limit.capacity(self.chancy, queue, conn)
            if (up_to := min(up_to, free)) <= 0:
                return []
            jobs = await self._take(queue, conn, up_to)
            await chancy_rate_limit.use_capacity(self.chancy, queue, conn, len(jobs))
            return jobs

    async def _take(
        self, queue: Queue, connection: psycopg.AsyncConnection[Any], up_to: int
    ) -> list[QueuedJob]:
        try:
            return await chancy_claims.take(self, queue, connection, up_to=up_to)
        except UNREADABLE:
            self.queue_wake_events[queue.name].set()
            jobs = await chancy_claims.sort_out(
                self, queue, connection, running=self._claims()
            )
            if jobs is None:
                raise
            return jobs

    async def leave_to_later(self, job: QueuedJob) -> bool:
        """Leaves a job that this version does not have to a later deployment.

        Returns:
            Whether there was one; otherwise the job is nobody's.
        """
        retry = self.database_retry("leave_to_later")
        while True:
            try:
                async with (
                    self.chancy.pool.connection() as connection,
                    connection.cursor(row_factory=dict_row) as cursor,
                ):
                    if outdated := await is_outdated(self.chancy, cursor):
                        await chancy_claims.postpone(
                            cursor, job, prefix=self.chancy.prefix
                        )
            except retry.errors as error:
                await retry.wait(error)
                continue
            retry.reset()
            if outdated:
                self.chancy.log.info(
                    "left the job %s (%s) to a later deployment", job.id, job.func
                )
            return outdated

    async def queue_update(self, update: QueuedJob) -> bool:
        if update.errors or update.meta:
            update = chancy_results.storable(update)
        accepted: bool = await super().queue_update(update)
        if accepted:
            self._unsaved.add(update.claim_id)
            self._has_unsaved.set()
        return accepted

    async def _emit(self, event: str, queue: Queue, executor: Executor) -> None:
        await self.hub.emit(
            f"worker.queue.{event}",
            {"queue": queue, "executor": executor, "worker": self},
        )


def _executor_of(queue: Queue) -> tuple[object, ...]:
    """What an executor is made of; the rest of a queue can change under it."""
    return queue.executor, queue.executor_options, queue.concurrency


@asynccontextmanager
async def together(*workers: Worker) -> AsyncIterator[None]:
    """Runs several Workers of one Chancy, which stop at the same time.

    One after the other, the last ones would go on taking jobs while the first drain.
    """
    async with AsyncExitStack() as stack:
        stack.push_async_callback(_stop_all, workers)
        for worker in workers:
            await worker.start()
        yield


async def _stop_all(workers: tuple[Worker, ...]) -> None:
    await asyncio.gather(*(worker.stop() for worker in workers))
