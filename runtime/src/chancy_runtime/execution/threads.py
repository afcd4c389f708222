"""A pool of threads for the jobs of one queue."""

import concurrent.futures
import functools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


class Threads(concurrent.futures.Executor):
    """Runs functions in daemon threads, for which a process does not wait at its exit.

    With ThreadPoolExecutor, a job that does not end would keep a process alive that has
    stopped and given the job back to its queue.

    Args:
        most: The number of threads. Each is started when no other one is free.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._threads: list[threading.Thread] = []
        self._free = threading.Semaphore(0)
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._waiting: set[Future[Any]] = set()

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        if not self._free.acquire(blocking=False) and len(self._threads) < self._most:
            thread = threading.Thread(target=self._run, name="workers-job", daemon=True)
            thread.start()
            self._threads.append(thread)
        call = _Call(functools.partial(fn, *args, **kwargs))
        self._waiting.add(call.future)
        self._calls.put(call)
        return call.future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        for future in tuple(self._waiting) if cancel_futures else ():
            future.cancel()
        for _ in self._threads:
            self._calls.put(None)
        for thread in self._threads if wait else ():
            thread.join()

    def _run(self) -> None:
        while call := self._calls.get():
            self._waiting.discard(call.future)
            call.run()
            del call  # It has the job.
            self._free.release()


class _Call:
    def __init__(self, function: Callable[[], Any]) -> None:
        self.future: Future[Any] = Future()
        self._function = function

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(self._function())
        except BaseException as error:  # noqa: BLE001  # the future gets it
            self.future.set_exception(error)
            # The error's traceback has this frame, which would keep the job alive.
            del self
