"""Chancy's executors, in which a bad job harms nobody but itself."""

import asyncio
import contextlib
import functools
import inspect
import pickle
import pkgutil
import sys
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import chancy
from chancy import Queue, QueuedJob
from chancy.executors import asyncex, process, thread
from chancy.executors.base import Executor
from chancy.job import Limit
from chancy.plugin import Plugin

from chancy_runtime.execution.children import Children, Context, end_with_parent
from chancy_runtime.queues.deployment import leave_to_later
from chancy_runtime.execution.hooks import with_hook
from chancy_runtime.jobs.rows import changed
from chancy_runtime.supervision.tasks import finish

if TYPE_CHECKING:
    from chancy_runtime.worker import Worker

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
            await leave_to_later(self.worker, job)
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
            if (key := _loaded(job.func)) is not None:
                _PLANS[cls, key] = function, takes_job
            return prepared, function, kwargs
        function, takes_job = plan
        kwargs = {**dict(job.kwargs or {}), **dict.fromkeys(takes_job, job)}
        return job, function, kwargs


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
        super().__init__(worker, queue, **{"mp_context": Context(), **options})

    def _create_pool(self) -> Children:  # type: ignore[override]
        self._children = Children(
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
        end_with_parent(at_once=True)
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


def _can_travel(value: object) -> bool:
    """Whether another process can unpickle the value."""
    try:
        pickle.loads(pickle.dumps(value))
    except Exception:  # noqa: BLE001  # pickle raises whatever the value does
        return False
    return True
