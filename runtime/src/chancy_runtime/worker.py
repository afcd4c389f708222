"""Chancy's Worker, with its tasks supervised and its stop bounded.

The only module that reaches into Chancy's private names.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any
from uuid import UUID

import chancy
import psycopg
from chancy import Queue, QueuedJob
from chancy.plugins import cron
from psycopg import AsyncConnection, sql
from psycopg.rows import DictRow, TupleRow, dict_row

from . import chancy_claims, chancy_results
from chancy_runtime.app import Chancy
from chancy_runtime.postgres.connections import autocommit
from chancy_runtime.postgres.target import reason_of
from chancy_runtime.errors import WorkersError
from chancy_runtime.execution.feeder import Feeder
from chancy_runtime.execution.hooks import with_hook
from chancy_runtime.listening import listen, listen_at_start, renew_when_silent
from chancy_runtime.supervision.supervisor import Retry, Supervisor

# The first time after another at which a cron expression fires in a time zone.
next_run = cron._next_run

_START_TIMEOUT = 8
_SAVE_TIMEOUT = 3
_SAVE_INTERVAL = 0.02
_LARGEST_BATCH = 1000
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
        self.fetching_since: dict[str, float] = {}
        self._in_doubt_until = 0.0

    # --- start and stop --------------------------------------------------------------

    async def start(self) -> None:
        """Starts all tasks; a start that fails leaves none behind.

        Raises:
            WorkersError: The database gives no connection for LISTEN.
        """
        self._listener = await listen_at_start(self.chancy)
        try:
            async with asyncio.timeout(_START_TIMEOUT):
                async with self.chancy.pool.connection() as connection:
                    # Before the first job: Recovery takes those of unknown workers.
                    await self.announce_worker(connection)
                await super().start()  # type: ignore[no-untyped-call]
                self.manager.add("listening", renew_when_silent(self))
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
            return Feeder(self, name.removeprefix("queue_")).run()
        tasks: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
            "queues": self._maintain_queues,
            "updates": self._maintain_updates,
            "heartbeat": self._maintain_heartbeat,
            "notifications": self._maintain_notifications,
            "listening": lambda: renew_when_silent(self),
        }
        return tasks[name]()

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
                async with self._listener or await listen(self.chancy) as connection:
                    self._listener = None
                    self._notifications_ready_event.set()
                    self.chancy.log.info("Started listening for notifications.")
                    retry.reset()
                    async for notification in connection.notifies():
                        event = json.loads(notification.payload)
                        await self.hub.emit(event.pop("t"), event)
            except retry.errors as error:
                await retry.wait(error)

    async def renew(self, name: str) -> None:
        """Ends a task and starts it again."""
        await self.manager.cancel(name)
        self.manager.add(name, self._task(name))

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

    def claims_are_in_doubt(self) -> None:
        """Notes that the answer to a claim got lost; the next heartbeats look after it."""
        self._in_doubt_until = time.monotonic() + 2 * self.heartbeat_timeout

    async def _give_back_unheard_of(self, cursor: psycopg.AsyncCursor[DictRow]) -> None:
        """Gives back what was taken by a fetch whose answer got lost.

        A fetch that is on its way may have taken jobs too, but none before it began.
        """
        now = time.monotonic()
        queues = await chancy_claims.give_back(
            cursor,
            self,
            running=self.claims(),
            older_than=now - min([now, *self.fetching_since.values()]),
        )
        for queue in queues:
            # Heard when the transaction is committed, and not before.
            await self.chancy.notify(cursor, "queue.pushed", {"q": queue})

    def claims(self) -> list[UUID | None]:
        """The claims of the jobs that run here or whose results are not saved yet."""
        running = [
            job.claim_id
            for executor in self.executors.values()
            for job in executor.get_running_jobs()
        ]
        return [*running, *self._unsaved]

    # --- jobs ------------------------------------------------------------------------

    def _maintain_queue(self, queue: Queue) -> Coroutine[Any, Any, None]:
        return Feeder(self, queue.name).run()

    async def fetch_jobs(
        self, queue: Queue, conn: psycopg.AsyncConnection[Any], *, up_to: int = 1
    ) -> list[QueuedJob]:
        return await chancy_claims.fetch(self, queue, conn, up_to=up_to)

    async def queue_update(self, update: QueuedJob) -> bool:
        if update.errors or update.meta:
            update = chancy_results.storable(update)
        accepted: bool = await super().queue_update(update)
        if accepted:
            self._unsaved.add(update.claim_id)
            self._has_unsaved.set()
        return accepted


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
