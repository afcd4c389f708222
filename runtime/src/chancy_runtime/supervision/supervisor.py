"""Keeps the tasks of a Worker running."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from chancy.retry import DatabaseRetry
from chancy.utils import TaskManager

from chancy_runtime.supervision.monitor import DATABASE_ERRORS, Monitor
from chancy_runtime.supervision.tasks import end, is_cancelled

_LONGEST_PAUSE = 60.0
# How long a task that was started again has to live before it counts as working.
_PROVEN_AFTER = 2.0


class Retry(DatabaseRetry):
    """Chancy's retry of a loop, which the monitor and not a traceback tells about.

    Attributes:
        errors: What the loop survives by it; other errors are the supervisor's.
        then: Is called when the loop does its work.
    """

    # One more than Chancy's.
    errors: tuple[type[Exception], ...] = DATABASE_ERRORS  # type: ignore[assignment]

    def __init__(self, name: str, monitor: Monitor) -> None:
        self.name = name
        self.monitor = monitor
        self.failures = 0
        self.then: Callable[[], None] | None = None

    def reset(self) -> None:
        self.failures = 0
        self.monitor.works(self.name)
        if self.then is not None:
            self.then()

    async def wait(self, error: BaseException) -> None:
        if is_cancelled():
            raise asyncio.CancelledError
        await self.monitor.recover(self.name, error, self.failures)
        self.failures += 1


class Supervisor(TaskManager):
    """A Worker's tasks, each started again when an error ended it.

    Chancy 0.26 starts its tasks and never looks at them again. One that returns is
    done; one that raises is reported and, after a pause that grows to a minute,
    started again.

    Args:
        monitor: Hears of each end and each recovery.
        start_again: Returns a new coroutine for the name of a task.
    """

    def __init__(
        self, monitor: Monitor, start_again: Callable[[str], Coroutine[Any, Any, None]]
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Chancy has no py.typed
        self._monitor = monitor
        self._start_again = start_again

    def add(self, name: str, task: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        return super().add(name, self._keep_running(name, task))

    async def cancel(self, name: str) -> None:
        tasks = [task for task in self if task.get_name() == name]
        if not tasks:
            raise KeyError(f"no task is named {name!r}")
        await end(tasks)

    async def cancel_all(self) -> None:
        while tasks := [task for task in self if not task.done()]:
            await end(tasks)

    async def _keep_running(self, name: str, run: Coroutine[Any, Any, None]) -> None:
        failures = 0
        proof: asyncio.TimerHandle | None = None
        while True:
            since = time.monotonic()
            try:
                return await run
            except (Exception, asyncio.CancelledError) as error:
                if is_cancelled():
                    raise
                if proof is not None:
                    proof.cancel()
                if time.monotonic() - since > _LONGEST_PAUSE:
                    failures = 0
                await self._monitor.recover(name, error, failures)
            failures += 1
            proof = asyncio.get_running_loop().call_later(
                _PROVEN_AFTER, self._monitor.works, name
            )
            run = self._start_again(name)
