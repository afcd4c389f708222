"""Starts of a service that must fail with one line, and locks that delay a start."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import AsyncConnection

from harness.commands import wait_for
from harness.databases import query
from harness.recorder import Recorder

PASSWORD = "hunter2"
_WAITING = (
    "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
    "AND datname = current_database()"
)
# A start has failed after 15 s, which test_start_budget.py holds; the processes of a busy
# machine begin and end later. One that waits for Chancy's pool takes 35 s and more.
LONGEST = 30
_ROUTINE = ("Started server", "Waiting for application", "startup failed. Exiting")


def the_line(output: str, *routine: str) -> str:
    """The one line that is not uvicorn's usual output; a traceback would be many lines."""
    lines = [
        line
        for line in output.splitlines()
        if not any(text in line for text in (*_ROUTINE, *routine))
    ]
    assert len(lines) == 1, output
    return lines[0]


class FailedStart:
    """A service that starts in the block and must end by itself soon after it."""

    def __init__(
        self,
        backend: Recorder,
        url: str,
        *,
        routine: tuple[str, ...] = (),
    ) -> None:
        self._service = backend.service(url, wait=False)
        self._status = 3 if backend.process == "api" else 1
        self._routine = routine
        self.line = ""

    def __enter__(self) -> "FailedStart":
        self.running = self._service.__enter__()
        wait_for(
            lambda: (
                "Waiting for application startup" in self.running.output
                or self.running.process.poll() is not None
            ),
            what="the start of uvicorn",
        )
        self._since = time.monotonic()
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            if exc == (None, None, None):
                status = self.running.process.wait(60)
                took = time.monotonic() - self._since
                output = self.running.output
                assert took < LONGEST, f"{took:.1f} s:\n{output}"
                assert status == self._status, output
                assert PASSWORD not in output
                self.line = the_line(output, *self._routine)
        finally:
            self._service.__exit__(None, None, None)


def line_of_failed_start(backend: Recorder, url: str) -> str:
    """The one line of a start that must fail."""
    with FailedStart(backend, url) as start:
        pass
    return start.line


@contextmanager
def lock(url: str, statement: str) -> Iterator[None]:
    """Holds the locks of a statement."""
    with psycopg.connect(url) as connection:
        connection.execute(statement)
        yield


def wait_for_lock(url: str, sessions: int = 1) -> None:
    """Waits until this number of sessions wait for a lock in the database."""
    wait_for(
        lambda: len(query(url, _WAITING)) >= sessions,
        what="a session that waits for a lock",
    )


async def until_locked(other: AsyncConnection[Any]) -> None:
    """Waits until a session waits for a lock in the other connection's database."""
    async with asyncio.timeout(60):
        while not await (await other.execute(_WAITING)).fetchall():
            await asyncio.sleep(0.02)
