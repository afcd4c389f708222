"""Chancy's executors, in which a bad job harms nobody but itself."""

import concurrent.futures
import ctypes
import functools
import inspect
import multiprocessing
import os
import pickle
import pkgutil
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.managers import SyncManager
from typing import TYPE_CHECKING, Any

import chancy
from chancy import Queue, QueuedJob
from chancy.executors import asyncex, process, thread
from chancy.executors.base import Executor

if TYPE_CHECKING:
    from .chancy_worker import Worker

CHILD_NAME = "workers-executor"
# https://man7.org/linux/man-pages/man2/prctl.2.html
_PR_SET_PDEATHSIG = 1


class JobExit(RuntimeError):
    """A job raised SystemExit or KeyboardInterrupt, which would end its process."""


class JobMissing(ImportError):
    """The function of a job cannot be imported in this version of the service."""


class JobError(RuntimeError):
    """A job's error that cannot leave its process, as text."""


class _Contained(Executor):
    """Turns what would end the process into an error of the job.

    A job that only a later deployment has is left to it.
    """

    worker: "Worker"

    @classmethod
    def get_function_and_kwargs(
        cls, job: QueuedJob
    ) -> tuple[Callable[..., Any], dict[str, Any]]:
        try:
            function, kwargs = super().get_function_and_kwargs(job)
        except (ImportError, AttributeError) as error:
            raise JobMissing(f"{job.func} cannot be imported: {error}") from error
        return _contain(function), kwargs

    async def on_job_completed(
        self, *, job: QueuedJob, exc: BaseException | None = None, result: Any = None
    ) -> None:
        if not (isinstance(exc, JobMissing) and await self.worker.leave_to_later(job)):
            await super().on_job_completed(job=job, exc=exc, result=result)


@functools.cache
def _contain(function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run_async(**kwargs: Any) -> Any:
            try:
                return await function(**kwargs)
            except (SystemExit, KeyboardInterrupt) as error:
                raise JobExit(f"the job raised {error!r}") from error

        return run_async

    @functools.wraps(function)
    def run(**kwargs: Any) -> Any:
        try:
            return function(**kwargs)
        except (SystemExit, KeyboardInterrupt) as error:
            raise JobExit(f"the job raised {error!r}") from error

    return run


class AsyncExecutor(_Contained, asyncex.AsyncExecutor):
    """Runs coroutines in the service's event loop."""


class ThreadedExecutor(_Contained, thread.ThreadedExecutor):
    """Runs jobs in threads of the service's process."""


class ProcessExecutor(_Contained, process.ProcessExecutor):
    """Runs each job in a child process that is not shared and does not outlive its parent."""

    def __init__(self, worker: Any, queue: Queue, **options: Any) -> None:
        super().__init__(worker, queue, **{"mp_context": _Context(), **options})

    def _create_pool(self) -> "_Children":  # type: ignore[override]
        return _Children(self._create_child)

    def _create_child(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            max_workers=1,
            max_tasks_per_child=self._maximum_jobs_per_worker,
            initializer=self.on_initialize_worker,
            mp_context=self._mp_context,
        )

    @classmethod
    def on_initialize_worker(cls) -> None:
        end_with_parent()
        super().on_initialize_worker()  # type: ignore[no-untyped-call]

    @classmethod
    def job_wrapper(cls, job: QueuedJob, *state: Any) -> tuple[QueuedJob, Any]:
        try:
            job, result = super().job_wrapper(job, *state)
            return job, result if _can_travel(result) else None
        except BaseException as error:
            if _can_travel(error):
                raise
            text = "".join(traceback.format_exception(error))
            raise JobError(
                f"the job failed with an error of its own kind:\n{text}"
            ) from None


_OWN = {
    chancy.Chancy.Executor.Async: AsyncExecutor,
    chancy.Chancy.Executor.Threaded: ThreadedExecutor,
    chancy.Chancy.Executor.Process: ProcessExecutor,
}


def executor_class(queue: Queue) -> Callable[..., Executor]:
    """Returns the class that runs a queue's jobs: one of these in the place of Chancy's.

    Rows keep naming Chancy's, so that any worker can read them.

    Raises:
        ImportError: The queue names another one that cannot be imported.
    """
    for name, own in _OWN.items():
        if queue.executor == name:
            return own
    found: Callable[..., Executor] = pkgutil.resolve_name(queue.executor)
    return found


class _Children(concurrent.futures.Executor):
    """Child processes, each a pool of its own: one that dies takes only its job along.

    Python's pool fails all of its jobs when one of its children dies.
    """

    def __init__(self, create: Callable[[], ProcessPoolExecutor]) -> None:
        self._create = create
        self._idle: list[ProcessPoolExecutor] = []
        self._all: set[ProcessPoolExecutor] = set()

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        while self._idle:
            child = self._idle.pop()
            try:
                return self._run(child, fn, args)
            except BrokenProcessPool:
                self._discard(child)
        child = self._create()
        self._all.add(child)
        return self._run(child, fn, args)

    def _run(
        self, child: ProcessPoolExecutor, fn: Callable[..., Any], args: tuple[Any, ...]
    ) -> Future[Any]:
        future = child.submit(fn, *args)
        future.add_done_callback(functools.partial(self._done, child))
        return future

    def _done(self, child: ProcessPoolExecutor, future: Future[Any]) -> None:
        if not future.cancelled() and isinstance(future.exception(), BrokenProcessPool):
            self._discard(child)
        else:
            self._idle.append(child)

    def _discard(self, child: ProcessPoolExecutor) -> None:
        self._all.discard(child)
        child.shutdown(wait=False)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        for child in list(self._all):
            child.shutdown(wait=False, cancel_futures=cancel_futures)
        if wait:
            for child in list(self._all):
                child.shutdown(wait=True)


class _Process(SpawnProcess):
    """A child that knows from its first line on that it is one."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "name": CHILD_NAME})

    @property
    def name(self) -> str:
        return CHILD_NAME

    @name.setter
    def name(self, name: str) -> None:
        """Keeps the name, which a manager would change."""


class _Context(SpawnContext):
    Process = _Process

    def Manager(self) -> SyncManager:
        manager = SyncManager(ctx=self)
        manager.start(initializer=end_with_parent)
        return manager


def end_with_parent() -> None:
    """Ties this process to the one that started it, which alone decides when to stop.

    A terminal and some platforms signal every process of the service at once.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _wait_for_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def is_executor_child() -> bool:
    """Whether this process is a child of an executor."""
    return multiprocessing.current_process().name == CHILD_NAME


def _can_travel(value: object) -> bool:
    """Whether another process can unpickle the value."""
    try:
        pickle.loads(pickle.dumps(value))
    except Exception:  # noqa: BLE001  # pickle raises whatever the value does
        return False
    return True
