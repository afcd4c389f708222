"""Reports the job that blocks the event loop."""

import asyncio
import logging
import sys
import threading
import time
import traceback
from collections.abc import Callable

BLOCKED_AFTER = 2.0


class Watchdog:
    """A thread that checks once a second that the event loop still turns.

    A loop that is blocked for longer than BLOCKED_AFTER seconds is reported once, with
    the job and the line that block it: until it ends, no other job, heartbeat or HTTP
    request makes progress.

    Args:
        name_of: Returns a name for the work of a task of the loop, such as "the job …".
        report: Called with the message about a blocked loop.
        log: The log for the end of the blockage.
    """

    def __init__(
        self,
        *,
        name_of: Callable[["asyncio.Task[object] | None"], str],
        report: Callable[[str], None],
        log: logging.Logger,
    ) -> None:
        self._name_of = name_of
        self._report = report
        self._log = log
        self._stopped = threading.Event()

    def start(self) -> None:
        """Starts a thread that watches the running loop."""
        self._stopped = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        threading.Thread(
            target=self._watch,
            args=[self._stopped],
            name="workers-watchdog",
            daemon=True,
        ).start()

    def stop(self) -> None:
        """Ends the thread within a second."""
        self._stopped.set()

    def _watch(self, stopped: threading.Event) -> None:
        while not stopped.wait(1):
            turned = threading.Event()
            since = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(turned.set)
            except RuntimeError:  # the loop is closed
                return
            if turned.wait(BLOCKED_AFTER):
                continue
            self._report(self._message())
            while not turned.wait(1) and not stopped.is_set():
                pass
            self._log.warning(
                "the event loop turns again after %.0f s", time.monotonic() - since
            )

    def _message(self) -> str:
        name = self._name_of(asyncio.current_task(self._loop))
        frame = sys._current_frames().get(self._thread)
        where = traceback.extract_stack(frame)[-1] if frame else None
        return (
            f"{name} blocks the event loop"
            + (f" at {where.filename}:{where.lineno}" if where else "")
            + ": move it to a queue with a thread or process executor"
        )
