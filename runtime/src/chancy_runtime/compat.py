"""Every private name of Chancy that this library uses; no other module uses one.

The classes give a public name to each private method that the library overrides. The
contract tests fail by that name when a later Chancy renames one.
"""

from collections.abc import Coroutine, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import chancy
from chancy import Queue, QueuedJob
from chancy.executors import asyncex, process
from chancy.plugins import cron

# Attributes of a QueuedJob that are not columns of its row.
ATTRIBUTES_OF_A_RUN = {"_time_limit_deadline": None}
# The names of Chancy's loops in its retries, with the names of their tasks.
TASK_OF_LOOP = {
    "queue maintenance": "queues",
    "outgoing job updates": "updates",
    "notifications listener": "notifications",
}


def next_run(cron_expression: str, now: datetime, timezone: ZoneInfo) -> datetime:
    """Returns the first time after `now` at which a cron expression fires.

    Raises:
        ValueError, KeyError, …: The expression cannot be read, or never fires.
    """
    return cron._next_run(cron_expression, now, timezone)


class OpenWorker(chancy.Worker):
    """Chancy's Worker with public names for its loops and its stop."""

    @property
    def gives_back(self) -> bool:
        """Whether the grace is over: running jobs go back to their queues."""
        return not self._accepting_updates

    def loop(self, name: str) -> Coroutine[Any, Any, None]:
        """Returns a new coroutine for one of Chancy's own tasks.

        Raises:
            KeyError: Chancy has no task of that name.
        """
        return {
            "queues": self._maintain_queues,
            "updates": self._maintain_updates,
            "heartbeat": self._maintain_heartbeat,
            "notifications": self._maintain_notifications,
        }[name]()

    async def drain(self, timeout: float) -> bool:
        """Ends the Worker's tasks; only the first call does anything.

        Returns:
            Whether all jobs ended within `timeout` seconds.
        """
        result: bool | None = self._drain_result
        if result is None:
            self._drain_result = result = await self._drain(timeout)
        return result

    async def stop_within(self, timeout: float) -> bool:
        """Stops; returns whether all jobs ended within `timeout` seconds."""
        raise NotImplementedError

    async def _stop(self, timeout: float) -> bool:
        return await self.stop_within(timeout)

    async def feed_queue(self, queue: Queue) -> None:
        """Takes the jobs of a queue."""
        raise NotImplementedError

    async def _maintain_queue(self, queue: Queue) -> None:
        await self.feed_queue(queue)

    async def save_results(self) -> None:
        """Saves the results of jobs."""
        raise NotImplementedError

    async def _maintain_updates(self) -> None:
        await self.save_results()

    async def hear_events(self) -> None:
        """Listens for notifications."""
        raise NotImplementedError

    async def _maintain_notifications(self) -> None:
        await self.hear_events()

    def is_listening(self) -> None:
        """Tells the start, which waits for it, that notifications arrive."""
        self._notifications_ready_event.set()

    async def flush(self) -> None:
        async with self._outgoing_lock:
            while self._pending_updates or not self.outgoing.empty():
                saved, rest = await self.save_batch(self._pending_updates)
                self._pending_updates = rest
                await self.announce_saved(saved)

    async def save_batch(
        self, batch: list[QueuedJob]
    ) -> tuple[Sequence[QueuedJob], list[QueuedJob]]:
        """Saves results; returns those that were accepted, and those still to be saved.

        Args:
            batch: More results are added from `outgoing`. A batch that could not be saved
                is passed again.
        """
        raise NotImplementedError

    async def announce_saved(self, saved: Sequence[QueuedJob]) -> None:
        """Runs after a batch was saved."""


class OpenAsyncExecutor(asyncex.AsyncExecutor):
    """Chancy's AsyncExecutor with public names for its runs and its cancellation."""

    async def run_in_wrapper(self, job: QueuedJob) -> None:
        """Runs a job in the wrapper that a subclass may put around run_job()."""
        await self._job_wrapper(job)

    async def run_job(self, job: QueuedJob) -> None:
        """Runs a job to its end, whatever it raises."""
        raise NotImplementedError

    async def _job_wrapper(self, job: QueuedJob) -> None:
        await self.run_job(job)

    def cancel_jobs(self) -> "list[Any]":
        """Cancels the tasks of all jobs, and returns them."""
        return self._cancel_jobs()

    async def cut_short(self) -> None:
        """Ends the jobs that the stop of the worker did not wait for."""
        await super()._stop_on_cancel()

    async def _stop_on_cancel(self) -> None:
        await self.cut_short()


class OpenProcessExecutor(process.ProcessExecutor):
    """Chancy's ProcessExecutor with public names for its pool and its shutdown."""

    def _create_pool(self) -> Any:
        return self.create_children(self._maximum_jobs_per_worker)

    def create_children(self, most: int | None) -> Any:
        """Returns the pool of child processes.

        Args:
            most: How many jobs a child runs before another takes its place; None for
                any number.
        """
        raise NotImplementedError

    async def limit_time(self, execution: UUID, seconds: int) -> None:
        """Ends a job that runs longer than `seconds`."""
        await super()._handle_timeout(execution, seconds)

    async def _handle_timeout(self, execution_id: UUID, time_limit: int) -> None:
        await self.limit_time(execution_id, time_limit)

    def _shutdown_blocking(self) -> None:
        self.end_children()

    def end_children(self) -> None:
        """Ends all child processes; blocks until they have ended."""
        raise NotImplementedError

    async def cut_short(self) -> None:
        """Ends the jobs that the stop of the worker did not wait for."""
        await super()._stop_on_cancel()

    async def _stop_on_cancel(self) -> None:
        await self.cut_short()


def dashboard_token(secret_key: str) -> str:
    """Returns a token for the routes of an `Api` that has this key.

    The route `login` makes the same tokens. `Api` checks a token's age, so each request gets
    a new one.
    """
    from chancy.plugins.api.auth import TokenAuthBackend

    return str(TokenAuthBackend(secret_key).serializer.dumps({"u": "gate"}))
