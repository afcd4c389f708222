"""Knows what is wrong with the workers, and says so once."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext

import psycopg
from psycopg.errors import ReadOnlySqlTransaction

from .chancy_tasks import end

# What goes away by itself when the database is back. Chancy 0.26 leaves the last one out.
DATABASE_ERRORS = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    ReadOnlySqlTransaction,
)
_LOST = "it lost the database"
_PROBE_INTERVAL = 1.0


class Monitor:
    """What the tasks of a process report of themselves; health reads it.

    The Chancy of the service constructs it; every Worker of that Chancy reports here.

    Attributes:
        failing: The tasks that do not work, each with its last reason.
        connect_error: Why the pool's last attempt to connect failed.
        calm_since: When the database last came back, in seconds of time.monotonic().

    Args:
        log: Where lines go; one at level ERROR becomes an event in Sentry.
        database: How the log names the database, without user and password.
        probe: Writes nothing to the database, but needs one that could be written to.
        scope: Makes a scope for an event in Sentry with the given tags.
    """

    def __init__(
        self,
        *,
        log: logging.Logger,
        database: str,
        probe: Callable[[], Awaitable[None]],
        scope: Callable[..., AbstractContextManager[object]] = lambda **_: (
            nullcontext()
        ),
    ) -> None:
        self.log = log
        self.database = database
        self.failing: dict[str, str] = {}
        self.connect_error = ""
        self.calm_since = time.monotonic()
        self._probe = probe
        self._scope = scope
        self._outage: asyncio.Task[None] | None = None

    @property
    def database_is_lost(self) -> bool:
        """Whether an outage of the database is going on."""
        return self._outage is not None and not self._outage.done()

    def report(self, message: str, error: BaseException | None, **tags: str) -> None:
        """Writes an error to the log, and by that to Sentry."""
        with self._scope(**tags):
            self.log.error(message, exc_info=error)

    def failed(self, task: str, error: BaseException) -> None:
        """Notes that a task ended or cannot do its work; a repetition is no second event."""
        reason = f"{type(error).__name__}: {error}"
        if self.failing.get(task) == reason:
            self.log.warning("%s still fails: %s", task, reason)
        else:
            self.failing[task] = reason
            self.report(f"{task} failed and is tried again: {reason}", error, task=task)

    def works(self, task: str) -> None:
        """Notes that a task does its work (again)."""
        if self.failing.pop(task, _LOST) != _LOST:
            self.log.warning("%s works again", task)

    async def database_failed(self, task: str, error: BaseException) -> None:
        """Returns when the database takes writes; all tasks wait for one and the same probe."""
        self.failing[task] = _LOST
        if not self.database_is_lost:
            try:
                await self._probe()
            except DATABASE_ERRORS as again:
                if not self.database_is_lost:
                    self._outage = asyncio.create_task(self._wait(again))
            else:
                self.log.warning(
                    "%s lost its connection to %s: %s",
                    *(task, self.database, self._reason(error)),
                )
        if self._outage is not None:
            await asyncio.shield(self._outage)
        self.calm_since = time.monotonic()

    async def _wait(self, error: BaseException) -> None:
        self.report(
            f"the database {self.database} is gone ({self._reason(error)}): the workers "
            "wait for it",
            None,
            task="database",
        )
        while True:
            await asyncio.sleep(_PROBE_INTERVAL)
            try:
                await self._probe()
            except DATABASE_ERRORS:
                continue
            self.log.warning("the database %s is back", self.database)
            return

    def _reason(self, error: BaseException) -> str:
        known = isinstance(error, psycopg.Error) and error.sqlstate
        text = str(error) if known or not self.connect_error else self.connect_error
        return " ".join(text.split())

    async def close(self) -> None:
        """Ends the probing."""
        if self._outage is not None:
            await end([self._outage])
