"""Knows the problems of the workers, and reports each problem once."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext

import psycopg
from psycopg.errors import QueryCanceled, ReadOnlySqlTransaction

from chancy_runtime.supervision.tasks import backoff, end

# Errors that end when the database is back. Chancy 0.26 retries all but the last one.
DATABASE_ERRORS = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    ReadOnlySqlTransaction,
)
# SQLSTATEs of a lost connection, a read-only server and a server without free connections.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
_LOSSES = ("08", "25006", "53300", "57P")
_LOST = "it lost the database"
_SLOW = (
    " (the server is slow, or the statement waited for a lock of another session, which "
    "pg_stat_activity and pg_locks show; or somebody cancelled it)"
)
_PROBE_INTERVAL = 1.0
_LONGEST_PAUSE = 60.0
_LONGEST_PAUSE_AFTER_LOSS = 5.0
# After this many losses in a row the task counts as failing, even if the database answers.
_PATIENCE = 10


def is_loss(error: BaseException) -> bool:
    """Whether an error means that the database is out of reach or takes no writes."""
    if not isinstance(error, DATABASE_ERRORS):
        return False
    return not error.sqlstate or error.sqlstate.startswith(_LOSSES)


class Monitor:
    """Collects the problems of a process's tasks; /health/ready reads them.

    The service's Chancy constructs it; every Worker of that Chancy reports to it.

    Attributes:
        failing: The names of the tasks that do not work, each with its last reason.
        connect_error: The error of the pool's last failed attempt to connect.
        calm_since: The time.monotonic() since which the database answers and heartbeats are
            in time.

    Args:
        log: The log for reports; a line at level ERROR becomes an event in Sentry.
        database: The name of the database in the log, without user and password.
        probe: Raises an error while the database does not take writes; writes nothing.
        scope: Returns a context manager in which a Sentry event gets the given tags.
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
        """Writes an error to the log, and thereby to Sentry."""
        with self._scope(**tags):
            self.log.error(message, exc_info=error)

    def failed(self, task: str, error: BaseException) -> None:
        """Records that a task ended or cannot work; does not report the same error twice."""
        kind = f"{type(error).__name__}: "
        reason = f"{kind}{error}{_SLOW if isinstance(error, QueryCanceled) else ''}"
        if self.failing.get(task, _LOST).startswith(kind):
            self.log.warning("%s still fails: %s", task, reason)
        else:
            self.failing[task] = reason
            self.report(
                f"{task} failed and will be retried: {reason}", error, task=task
            )

    def gave_up(self, task: str, error: BaseException) -> None:
        """Records that a task ended and cannot be started again."""
        self.failing[task] = reason = f"{type(error).__name__}: {error}"
        message = f"{task} failed and cannot be started again: {reason}"
        self.report(message, error, task=task)

    def works(self, task: str) -> None:
        """Records that a task works (again)."""
        if self.failing.pop(task, _LOST) != _LOST:
            self.log.warning("%s works again", task)

    def has_been_calm_for(self, seconds: float) -> bool:
        """Whether no connection was lost and no heartbeat was late in the last `seconds`."""
        calm_for = time.monotonic() - self.calm_since
        return not self.database_is_lost and calm_for >= seconds

    async def recover(self, task: str, error: BaseException, failures: int) -> None:
        """Records why a task failed, and waits until it is time to try again.

        Args:
            failures: How many times in a row the task had failed before.
        """
        if is_loss(error) and failures < _PATIENCE:
            await self._outlast_loss(task, error)
            await asyncio.sleep(backoff(failures, _LONGEST_PAUSE_AFTER_LOSS))
        else:
            self.failed(task, error)
            await asyncio.sleep(backoff(failures, _LONGEST_PAUSE))

    def replace_failing(self, prefix: str, errors: dict[str, BaseException]) -> None:
        """Records which of the tasks with a name prefix fail now; the others work.

        Args:
            errors: The reasons, by the names of the failing tasks without the prefix.
        """
        for task in [task for task in self.failing if task.startswith(prefix)]:
            if task.removeprefix(prefix) not in errors:
                self.works(task)
        for name, error in errors.items():
            if f"{prefix}{name}" not in self.failing:
                self.failed(f"{prefix}{name}", error)

    async def _outlast_loss(self, task: str, error: BaseException) -> None:
        """Waits until the database takes writes; all tasks share one probe."""
        self.failing[task] = _LOST
        if not self.database_is_lost:
            try:
                await self._probe()
            except Exception as again:  # noqa: BLE001  # any error means that it is lost
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
            except Exception as again:  # noqa: BLE001  # any error means that it is lost
                self.log.debug("the database is still gone: %s", again)
                continue
            self.log.warning("the database %s is back", self.database)
            return

    def _reason(self, error: BaseException) -> str:
        known = isinstance(error, psycopg.Error) and error.sqlstate
        text = str(error) if known or not self.connect_error else self.connect_error
        return " ".join(text.split())

    async def close(self) -> None:
        """Stops waiting for the database."""
        if self._outage is not None:
            await end([self._outage])
