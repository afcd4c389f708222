"""Chancy's executors, in which a bad job harms nobody but itself."""

import asyncio
import concurrent.futures
import contextlib
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
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from datetime import UTC, datetime
from functools import cached_property
from multiprocessing import resource_tracker
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.managers import SyncManager
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any

import chancy
from chancy import Queue, QueuedJob
from chancy.executors import asyncex, process, thread
from chancy.executors.base import Executor
from chancy.job import Limit
from chancy.plugin import Plugin

from .chancy_hooks import with_hook
from .chancy_jobs import changed
from .chancy_tasks import finish

if TYPE_CHECKING:
    from .chancy_worker import Worker

CHILD_NAME = "workers-executor"
# https://man7.org/linux/man-pages/man2/prctl.2.html
_PR_SET_PDEATHSIG = 1
_NOT_FOR_CHILDREN = (signal.SIGINT, signal.SIGTERM)
# How long jobs that the stop of the worker cut short may clean up.
_CANCEL_TIMEOUT = 1.0


# Of each executor and function: what is called, and its arguments that take the job itself.
_PLANS: dict[tuple[type, object], tuple[Callable[..., Any], list[str]]] = {}


class JobExit(RuntimeError):
    """A job raised what is no Exception, such as SystemExit, and ends more than the job."""


class JobMissing(ImportError):
    """The function of a job cannot be imported in this version of the service."""


class JobError(RuntimeError):
    """A job's error that cannot leave its process, as text."""


class _Contained(Executor):
    """Turns what would end the process into an error of the job.

    A job that only a later deployment has is left to it.
    """

    worker: "Worker"

    async def on_job_completed(
        self, *, job: QueuedJob, exc: BaseException | None = None, result: Any = None
    ) -> None:
        """Leaves alone what runs again: cut short by a stop, or only a later version's."""
        if self.worker.gives_back:
            return
        if exc is None:
            await self._on_job_succeeded(job, result)
        elif not isinstance(exc, JobMissing) or not (
            await self.worker.leave_to_later(job)
        ):
            await super().on_job_completed(job=job, exc=exc, result=result)

    async def _on_job_succeeded(self, job: QueuedJob, result: Any) -> None:
        """What Chancy does then, without what takes longer than a short job."""
        job = changed(
            job,
            state=QueuedJob.State.SUCCEEDED,
            completed_at=datetime.now(tz=UTC),
            attempts=job.attempts + 1,
        )
        for plugin in self._completed_hooks:
            with contextlib.suppress(NotImplementedError):
                job = await plugin.on_job_completed(
                    job=job, worker=self.worker, result=result
                )
        await self.worker.queue_update(job)
        await self.worker.on_job_completed(queue=self.queue, job=job)

    async def on_job_starting(self, job: QueuedJob) -> QueuedJob:
        for plugin in self._starting_hooks:
            with contextlib.suppress(NotImplementedError):
                job = await plugin.on_job_starting(job=job, worker=self.worker)
        return job

    @cached_property
    def _starting_hooks(self) -> list[Plugin]:
        return with_hook("on_job_starting", self.worker.chancy.plugins.values())

    @cached_property
    def _completed_hooks(self) -> list[Plugin]:
        return with_hook("on_job_completed", self.worker.chancy.plugins.values())

    @classmethod
    def get_function_and_kwargs(
        cls, job: QueuedJob
    ) -> tuple[Callable[..., Any], dict[str, Any]]:
        try:
            with _ExitsContained():
                function, kwargs = super().get_function_and_kwargs(job)
        except (ImportError, AttributeError) as error:
            raise JobMissing(f"{job.func} cannot be imported: {error}") from error
        return _contain(function), kwargs

    @classmethod
    def prepare_job_for_execution(
        cls, job: QueuedJob
    ) -> tuple[QueuedJob, Callable[..., Any], dict[str, Any]]:
        """Asks Chancy once for each function: its answer takes longer than a short job."""
        if job.limits or (plan := _PLANS.get((cls, _loaded(job.func)))) is None:
            prepared, function, kwargs = super().prepare_job_for_execution(job)
            takes_job = [name for name, value in kwargs.items() if value is prepared]
            _PLANS[cls, _loaded(job.func)] = function, takes_job
            return prepared, function, kwargs
        function, takes_job = plan
        return (
            job,
            function,
            {**dict(job.kwargs or {}), **dict.fromkeys(takes_job, job)},
        )


def _loaded(path: str) -> object:
    """The function of a path, where its module is imported already."""
    module, _, name = path.rpartition(".")
    return getattr(sys.modules.get(module), name, None)


@functools.cache
def _contain(function: Callable[..., Any]) -> Callable[..., Any]:
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run_async(**kwargs: Any) -> Any:
            with _ExitsContained():
                return await function(**kwargs)

        return run_async

    @functools.wraps(function)
    def run(**kwargs: Any) -> Any:
        with _ExitsContained():
            return function(**kwargs)

    return run


class _ExitsContained:
    """Turns what is no Exception, and would end more than the job, into one."""

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: object, error: BaseException | None, traceback: object
    ) -> None:
        if not isinstance(error, Exception | asyncio.CancelledError | None):
            raise JobExit(f"the job raised {type(error).__name__}") from error


class AsyncExecutor(_Contained, asyncex.AsyncExecutor):
    """Runs coroutines in the service's event loop."""

    async def push(self, job: QueuedJob) -> None:
        task = asyncio.create_task(self._run(await self.on_job_starting(job)))
        self.jobs[task] = job
        task.add_done_callback(self.jobs.pop)

    async def _run(self, job: QueuedJob) -> None:
        try:
            job, function, kwargs = self.prepare_job_for_execution(job)
            if job.limits:
                async with asyncio.timeout(self.get_limit(job, Limit.Type.TIME)):
                    result = await function(**kwargs)
            else:
                result = await function(**kwargs)
            await self.on_job_completed(job=job, result=result)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001
            await self.on_job_completed(job=job, exc=error)

    async def _stop_on_cancel(self) -> None:
        if tasks := self._cancel_jobs():
            await finish(asyncio.wait(tasks, timeout=_CANCEL_TIMEOUT))


class ThreadedExecutor(_Contained, thread.ThreadedExecutor):
    """Runs jobs in threads of the service's process."""


class ProcessExecutor(_Contained, process.ProcessExecutor):
    """Runs each job in a child process that is not shared and does not outlive its parent."""

    def __init__(self, worker: Any, queue: Queue, **options: Any) -> None:
        super().__init__(worker, queue, **{"mp_context": _Context(), **options})

    def _create_pool(self) -> "_Children":  # type: ignore[override]
        self._children = _Children(
            self.on_initialize_worker, self._maximum_jobs_per_worker
        )
        return self._children

    def _shutdown_blocking(self) -> None:
        self._children.end(_CANCEL_TIMEOUT)
        self.manager.shutdown()

    async def _stop_on_cancel(self) -> None:
        for task in self.timeouts.values():
            task.cancel()
        with contextlib.suppress(OSError, EOFError):  # The manager is gone.
            for job in self.get_running_jobs():
                await self.cancel_execution(job)
        await finish(asyncio.to_thread(self._shutdown_blocking))

    @classmethod
    def on_initialize_worker(cls) -> None:
        end_with_parent()
        if sys.platform == "linux":
            # Also in the middle of a call that lets no other thread run. Linux means
            # the thread that started this child, which is the main one.
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        super().on_initialize_worker()  # type: ignore[no-untyped-call]

    @classmethod
    def job_wrapper(cls, job: QueuedJob, *state: Any) -> tuple[QueuedJob, Any]:
        try:
            job, result = super().job_wrapper(job, *state)
            return job, result if _can_travel(result) else None
        except MemoryError:
            raise
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


async def create_executor(worker: "Worker", queue: Queue) -> Executor:
    """Returns the executor of a queue.

    Raises:
        ImportError: The queue names one that cannot be imported.
    """
    create = functools.partial(
        executor_class(queue), worker, queue, **(queue.executor_options or {})
    )
    if executor_class(queue) is ProcessExecutor:
        # It starts a process, and waits for it.
        return await asyncio.to_thread(create)
    return create()


class _Child:
    """A pool of one process, which can be killed."""

    def __init__(self, initializer: Callable[[], None]) -> None:
        self.jobs = 0
        self._context = _Context()
        self._pool = ProcessPoolExecutor(
            max_workers=1, initializer=initializer, mp_context=self._context
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


class _Children(concurrent.futures.Executor):
    """Child processes, each a pool of its own: one that dies takes only its job along.

    Python's pool fails all of its jobs when one of its children dies, and can wait for
    ever for a child that it replaced (https://github.com/python/cpython/issues/115634).
    One that ran out of memory is replaced: what limited it may hold for its next job.

    Args:
        initializer: Runs first in each child.
        most: How many jobs a child runs before another takes its place.
    """

    def __init__(self, initializer: Callable[[], None], most: int) -> None:
        self._initializer = initializer
        self._most = most
        self._idle: list[_Child] = []
        self._all: set[_Child] = set()

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        while self._idle:
            child = self._idle.pop()
            if child.jobs < self._most:
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
        future = child.submit(fn, args)
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
        """Ends all children, those by force that take longer than `timeout`."""
        children = list(self._all)
        for child in children:
            child.retire()
        deadline = time.monotonic() + timeout
        for child in children:
            child.kill_after(max(0, deadline - time.monotonic()))


class _Process(SpawnProcess):
    """A child that knows from its first line on that it is one.

    Python runs the script that started the service again in each child, which would
    start a second service where uvicorn.run() has no guard. A child imports what its
    jobs need and nothing else.
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


class _Context(SpawnContext):
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
    """A child that starts meanwhile hears none of _NOT_FOR_CHILDREN before it can refuse."""
    if sys.platform == "win32":
        yield
        return
    resource_tracker.ensure_running()  # Its start would let the signals through.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _NOT_FOR_CHILDREN)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_with_parent() -> None:
    """Ties this process to the one that started it, which alone decides when to stop.

    A terminal and some platforms signal every process of the service at once.
    """
    for number in _NOT_FOR_CHILDREN:
        # SIG_IGN would be inherited by what a job starts.
        signal.signal(number, _refuse)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _NOT_FOR_CHILDREN)
    threading.Thread(target=_wait_for_parent, daemon=True).start()


def _refuse(_number: int, _frame: FrameType | None) -> None:
    """Handles a signal by doing nothing."""


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
