"""The child processes of an executor: if one dies, only its own job fails."""

import concurrent.futures
import contextlib
import ctypes
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.managers import SyncManager
from types import FrameType, ModuleType
from typing import Any

from chancy_runtime.isolation import run_isolated

CHILD_NAME = "workers-executor"
# https://man7.org/linux/man-pages/man2/prctl.2.html
_PR_SET_PDEATHSIG = 1
_NOT_FOR_CHILDREN = (signal.SIGINT, signal.SIGTERM)


class _Child:
    """A pool of one process, which can be killed."""

    def __init__(self, initializer: Callable[[], None]) -> None:
        self.jobs = 0
        self._context = Context()
        self._pool = ProcessPoolExecutor(
            max_workers=1,
            initializer=_begin,
            initargs=(initializer,),
            mp_context=self._context,
        )

    def submit(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> Future[Any]:
        self.jobs += 1
        return self._pool.submit(fn, *args)

    def retire(self) -> None:
        """Lets the process end after its job."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def kill_after(self, seconds: float) -> None:
        """Kills the process if it has not ended by then."""
        deadline = time.monotonic() + seconds
        for each in self._context.started:
            if each.pid:
                each.join(max(0, deadline - time.monotonic()))
                each.kill()


def _begin(initializer: Callable[[], None]) -> None:
    end_with_parent(at_once=True)
    initializer()


class Children(concurrent.futures.Executor):
    """Child processes, each in a pool of its own: if one dies, only its own job fails.

    Python's pool fails all of its jobs when one of its children dies, and can wait for
    ever for a child that it replaced (https://github.com/python/cpython/issues/115634).
    A child that ran out of memory is replaced, because its next job might run out too.

    Args:
        initializer: The first function that runs in each child.
        most: How many jobs a child runs before another takes its place; None for any
            number.
    """

    def __init__(self, initializer: Callable[[], None], most: int | None) -> None:
        self._initializer = initializer
        self._most = most
        self._idle: list[_Child] = []
        self._all: set[_Child] = set()

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        while self._idle:
            child = self._idle.pop()
            if self._most is None or child.jobs < self._most:
                try:
                    return self._run(child, fn, args)
                except BrokenProcessPool:
                    child.kill_after(0)
            self._discard(child)
        child = _Child(self._initializer)
        self._all.add(child)
        return self._run(child, fn, args)

    def _run(
        self, child: _Child, fn: Callable[..., Any], args: tuple[Any, ...]
    ) -> Future[Any]:
        future = child.submit(run_isolated, (None, fn, *args))
        future.add_done_callback(functools.partial(self._done, child))
        return future

    def _done(self, child: _Child, future: Future[Any]) -> None:
        if not future.cancelled() and isinstance(future.exception(), MemoryError):
            self._discard(child)
        else:
            self._idle.append(child)

    def _discard(self, child: _Child) -> None:
        self._all.discard(child)
        child.retire()

    def end(self, timeout: float) -> None:
        """Ends all children; kills those that have not ended after `timeout` seconds."""
        children = list(self._all)
        for child in children:
            child.retire()
        deadline = time.monotonic() + timeout
        for child in children:
            child.kill_after(max(0, deadline - time.monotonic()))


class _Process(SpawnProcess):
    """A child process that is marked as one before it runs any code of the service.

    In each child, Python would run the script that started the service again. That would
    start a second service where uvicorn.run() has no guard. Here a child imports only what
    its jobs need.
    """

    _starting = threading.Lock()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "name": CHILD_NAME})

    @property
    def name(self) -> str:
        return CHILD_NAME

    @name.setter
    def name(self, name: str) -> None:
        """Keeps the name, which a manager would change."""

    def start(self) -> None:
        with self._starting, _signals_held_back():
            script = sys.modules["__main__"]
            sys.modules["__main__"] = ModuleType("__main__")
            try:
                super().start()
            finally:
                sys.modules["__main__"] = script


class Context(SpawnContext):
    """Starts children, and remembers them."""

    def __init__(self) -> None:
        self.started: list[_Process] = []

    def Process(self, *args: Any, **kwargs: Any) -> _Process:  # type: ignore[override]
        process = _Process(*args, **kwargs)
        self.started.append(process)
        return process

    def Manager(self) -> SyncManager:
        manager = SyncManager(ctx=self)
        manager.start(initializer=end_with_parent)
        return manager


@contextlib.contextmanager
def _signals_held_back() -> Iterator[None]:
    """Blocks _NOT_FOR_CHILDREN, so that a new child can set its handlers first."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # If started later, it would unblock the signals.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_FOR_CHILDREN)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent(*, at_once: bool = False) -> None:
    """Makes this process end with its parent, and ignore the signals that stop services.

    A terminal and some platforms signal every process of the service at once; only the
    parent decides when its children stop.

    Args:
        at_once: Whether it ends even during a call that lets no other thread run.
    """
    for number in _NOT_FOR_CHILDREN:
        # Programs that a job starts would inherit SIG_IGN.
        signal.signal(number, _refuse)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _NOT_FOR_CHILDREN)
    threading.Thread(target=_wait_for_parent, daemon=True).start()
    if at_once and sys.platform == "linux":
        # On Linux the parent is the thread that started this child: here the main thread.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _refuse(_number: int, _frame: FrameType | None) -> None:
    """Handles a signal by doing nothing."""


def _wait_for_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def is_executor_child() -> bool:
    """Whether this process is a child of an executor."""
    return multiprocessing.current_process().name == CHILD_NAME
