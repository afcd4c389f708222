"""A pool of threads for the jobs of one queue."""

import concurrent.futures
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class Threads(concurrent.futures.Executor):
    """Runs functions in daemon threads, for which a process does not wait at its exit.

    It waits for those of ThreadPoolExecutor. So a job that does not end would keep alive a
    process that has stopped and given the job back to its queue.

    Args:
        most: The number of threads. Each is started when no other one is free.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._threads: list[threading.Thread] = []
        self._free = threading.Semaphore(0)
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._waiting: set[Future[Any]] = set()

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        future: Future[Any] = Future()
        self._waiting.add(future)

        def call() -> None:
            self._waiting.discard(future)
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as error:  # noqa: BLE001  # the future gets it
                    future.set_exception(error)

        self._calls.put(call)
        if not self._free.acquire(blocking=False) and len(self._threads) < self._most:
            thread = threading.Thread(target=self._run, name="workers-job", daemon=True)
            self._threads.append(thread)
            thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        for future in tuple(self._waiting) if cancel_futures else ():
            future.cancel()
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads if wait else ():
            thread.join()

    def _run(self) -> None:
        while call := self._calls.get():
            call()
            del call  # It has the job.
            self._free.release()
