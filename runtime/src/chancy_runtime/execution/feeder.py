"""Feeds the jobs of a queue to its executor."""

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any

from chancy import Queue
from chancy.executors.base import Executor
from psycopg.errors import QueryCanceled

from chancy_runtime.execution.executors import create_executor
from chancy_runtime.execution.host import Host
from chancy_runtime.isolation import isolated
from chancy_runtime.jobs.rows import changed
from chancy_runtime.postgres.connections import autocommit
from chancy_runtime.queues.rows import check_numbers, resume_when_due
from chancy_runtime.supervision.tasks import backoff

_LARGEST_CLAIM = 500
_DRAIN_INTERVAL = 0.02
_LONGEST_PAUSE = 60.0


class Feeder:
    """Chancy's loop of a queue, except that running jobs survive its errors.

    Chancy 0.26 cancels them, and so fails them, when a poll loses its connection.

    Args:
        worker: The Worker that serves the queue.
        name: The name of the queue.
    """

    def __init__(self, worker: Host, name: str) -> None:
        self.worker = worker
        self.name = name
        self._most = _LARGEST_CLAIM

    @property
    def _wake(self) -> asyncio.Event:
        return self.worker.queue_wake_events[self.name]

    @property
    def _queue(self) -> Queue | None:
        """The current version of the queue, or None when the worker must leave it."""
        return self.worker.queues.get(self.name)

    async def run(self) -> None:
        """Feeds until the worker has left the queue and its jobs have ended."""
        executors = self.worker.executors
        while queue := self._queue:
            check_numbers(queue)
            async with contextlib.AsyncExitStack() as stack:
                stack.callback(executors.pop, self.name, None)
                executor = await stack.enter_async_context(
                    await create_executor(self.worker, queue)
                )
                executors[self.name] = executor
                await self._emit("started", executor)
                await self._serve(queue, executor)
                await self._emit("updated" if self._queue else "removed", executor)
        self.worker.monitor.failing.pop(f"queue_{self.name}", None)

    async def _serve(self, queue: Queue, executor: Executor) -> None:
        """Feeds an executor until its queue needs another one and its jobs have ended.

        Chancy 0.26 waits for the end of all jobs at every change, even at a pause.
        """
        retry = self.worker.database_retry(f"queue_{self.name}")
        failures, more = 0, True
        while True:
            # If there are more, they are claimed while these jobs run.
            if not more:
                await self._until_woken(queue)
            current = self._queue
            if current is None or _executor_of(current) != _executor_of(queue):
                while len(executor):
                    await asyncio.sleep(_DRAIN_INTERVAL)
                return
            if current != queue:
                await self._emit("updated", executor)
            queue = executor.queue = current
            try:
                more = False
                more = await self._feed(queue, executor)
                retry.reset()
                failures = 0
            except retry.errors as error:
                if isinstance(error, QueryCanceled):
                    # The server was too slow for so many jobs, or waited for a lock.
                    self._most = max(1, min(self._most, executor.concurrency) // 2)
                self.worker.claims_are_in_doubt()
                await self._unless_stopping(retry.wait(error))
                self._wake.set()
            except Exception as error:  # noqa: BLE001  # running jobs go on
                self.worker.monitor.failed(retry.name, error)
                await self._unless_stopping(
                    asyncio.sleep(backoff(failures, _LONGEST_PAUSE))
                )
                failures += 1
                self._wake.set()

    async def _unless_stopping(self, pause: Coroutine[Any, Any, None]) -> None:
        """Waits for the end of a pause, or for the stop of the worker."""
        tasks = [
            asyncio.create_task(pause),
            asyncio.create_task(_until_set(self.worker.shutdown_event)),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()

    async def _until_woken(self, queue: Queue) -> None:
        if self._queue is None:
            return  # A stop during the first claim found no event to set.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(1, queue.polling_interval or 1)):
                await self._wake.wait()
        self._wake.clear()
        # The executor drops a job that has just ended one turn of the event loop later.
        await asyncio.sleep(0)

    async def _feed(self, queue: Queue, executor: Executor) -> bool:
        """Takes jobs for the free slots; returns whether there may be more for others."""
        worker = self.worker
        if queue.state == Queue.State.PAUSED:
            if queue.resume_at:
                await resume_when_due(worker.app, self.name)
            return False
        if (free := executor.free_slots) <= 0:
            await self._emit("full", executor)
            return False
        up_to = min(free, self._most)
        worker.fetching_since[self.name] = time.monotonic()
        try:
            async with autocommit(worker.app.pool) as connection:
                jobs = await worker.fetch_jobs(queue, connection, up_to=up_to)
            for job in jobs:
                worker.log.debug(
                    "Pulled %s (%s) for queue %s", job.id, job.func, job.queue
                )
                # A hook's Sentry data for a job is reported with that job only.
                with isolated():
                    try:
                        func = worker.registered.check_function(job.func)
                        await executor.push(
                            job if func == job.func else changed(job, func=func)
                        )
                    except Exception as error:  # noqa: BLE001  # the row gets the error
                        await executor.on_job_completed(job=job, exc=error)
        finally:
            del worker.fetching_since[self.name]
        if up_to == len(jobs):
            self._most = min(self._most + 1, _LARGEST_CLAIM)
        return up_to < free and up_to == len(jobs)

    async def _emit(self, event: str, executor: Executor) -> None:
        await self.worker.hub.emit(
            f"worker.queue.{event}",
            {"queue": executor.queue, "executor": executor, "worker": self.worker},
        )


async def _until_set(event: asyncio.Event) -> None:
    await event.wait()


def _executor_of(queue: Queue) -> tuple[object, ...]:
    """Returns the settings of a queue whose change needs a new executor."""
    return queue.executor, queue.executor_options, queue.concurrency
