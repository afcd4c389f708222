"""Keeps the tasks of a Worker running."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from chancy.retry import DatabaseRetry
from chancy.utils import TaskManager

from chancy_runtime.isolation import isolated
from chancy_runtime.supervision.monitor import DATABASE_ERRORS, Monitor
from chancy_runtime.supervision.tasks import end, is_cancelled

_Run = Coroutine[Any, Any, None]
_LONGEST_PAUSE = 60.0
# Seconds that a restarted task has to live before it counts as working.
_PROVEN_AFTER = 2.0


class Retry(DatabaseRetry):
    """Chancy's retry of a loop, which reports to the monitor instead of the log.

    Attributes:
        errors: The errors after which the loop tries again; the supervisor handles
            the others.
        then: Called when the loop has done its work.
    """

    # Chancy's tuple plus ReadOnlySqlTransaction.
    errors: tuple[type[Exception], ...] = DATABASE_ERRORS

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
        if not isinstance(error, self.errors):
            raise error
        await self.monitor.recover(self.name, error, self.failures)
        self.failures += 1


class Supervisor(TaskManager):
    """The tasks of a Worker; each is started again after an error.

    Chancy 0.26 starts its tasks and never checks them. Here a task that raises an error is
    reported and started again after a pause that grows to a minute; a task that returns has
    ended.

    Args:
        monitor: Gets each failure and each recovery.
        find: Called with the name of each added task. Returns a function that creates the
            task's coroutine again, or None for a task that cannot be started again.
    """

    def __init__(
        self, monitor: Monitor, find: Callable[[str], Callable[[], _Run] | None]
    ) -> None:
        super().__init__()
        self._monitor = monitor
        self._find = find

    def add(self, name: str, task: _Run) -> "asyncio.Task[None]":
        again = self._find(name)
        if again is None:
            # A task that is added again counts as a new one.
            self._monitor.failing.pop(name, None)
        return super().add(name, self._isolated(name, task, again))

    async def cancel(self, name: str) -> None:
        tasks = [task for task in self if task.get_name() == name]
        if not tasks:
            raise KeyError(f"no task is named {name!r}")
        await end(tasks)

    async def cancel_all(self) -> None:
        while tasks := [task for task in self if not task.done()]:
            await end(tasks)

    async def _isolated(
        self, name: str, run: _Run, again: Callable[[], _Run] | None
    ) -> None:
        with isolated():
            await self._keep_running(name, run, again)

    async def _keep_running(
        self, name: str, run: _Run, again: Callable[[], _Run] | None
    ) -> None:
        failures = 0
        proof: asyncio.TimerHandle | None = None
        while True:
            since = time.monotonic()
            try:
                return await run
            except (Exception, asyncio.CancelledError) as error:
                if is_cancelled():
                    raise
                if again is None:
                    self._monitor.gave_up(name, error)
                    return None
                if proof is not None:
                    proof.cancel()
                if time.monotonic() - since > _LONGEST_PAUSE:
                    failures = 0
                await self._monitor.recover(name, error, failures)
            failures += 1
            proof = asyncio.get_running_loop().call_later(
                _PROVEN_AFTER, self._monitor.works, name
            )
            run = again()
