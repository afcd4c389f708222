"""Names the job that blocks the event loop."""

import asyncio
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING

from chancy import QueuedJob

if TYPE_CHECKING:
    from chancy_runtime.app import Chancy

BLOCKED_AFTER = 2.0


class Watchdog:
    """A thread that asks the event loop once a second whether it still turns.

    The Chancy of the service starts it. A loop that is blocked for longer than
    BLOCKED_AFTER seconds is reported once, with the job and the line it stands in:
    no other job, heartbeat or HTTP request goes on meanwhile.
    """

    def __init__(self, chancy: "Chancy") -> None:
        self._chancy = chancy
        self._stopped = threading.Event()

    def start(self) -> None:
        """Starts to watch the running loop, from its own thread."""
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        threading.Thread(
            target=self._watch, name="workers-watchdog", daemon=True
        ).start()

    def stop(self) -> None:
        """Ends the thread within a second."""
        self._stopped.set()

    def _watch(self) -> None:
        while not self._stopped.wait(1):
            turned = threading.Event()
            since = time.monotonic()
            try:
                self._loop.call_soon_threadsafe(turned.set)
            except RuntimeError:  # the loop is closed
                return
            if turned.wait(BLOCKED_AFTER):
                continue
            self._report()
            while not turned.wait(1) and not self._stopped.is_set():
                pass
            self._chancy.log.warning(
                "the event loop turns again after %.0f s", time.monotonic() - since
            )

    def _report(self) -> None:
        job = self._running_job()
        name = f"the job {job.func} ({job.id})" if job else "something that is no job"
        frame = sys._current_frames().get(self._thread)
        where = traceback.extract_stack(frame, limit=None)[-1] if frame else None
        self._chancy.monitor.report(
            f"{name} blocks the event loop"
            + (f" at {where.filename}:{where.lineno}" if where else "")
            + ": move it to a queue with a thread or process executor",
            None,
            task="event loop",
        )

    def _running_job(self) -> QueuedJob | None:
        task = asyncio.current_task(self._loop)
        for worker in list(self._chancy.workers):
            for executor in list(worker.executors.values()):
                if job := getattr(executor, "jobs", {}).get(task):
                    found: QueuedJob = job
                    return found
        return None
