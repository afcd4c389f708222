"""Chancy's executors, hardened: a bad job harms only itself."""

import abc
import asyncio
import contextlib
import copyreg
import functools
import inspect
import logging
import pickle
import pkgutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from datetime import UTC, timedelta
from typing import Any, Never, cast
from uuid import UUID

from chancy import Queue, QueuedJob
from chancy.executors import asyncex, process, thread
from chancy.executors.base import Executor
from chancy.job import Limit

from chancy_runtime.compat import OpenAsyncExecutor, OpenProcessExecutor
from chancy_runtime.errors import WorkersError, refuse_arguments
from chancy_runtime.execution.children import Children, Context
from chancy_runtime.execution.hooks import (
    run_completed_hooks,
    run_starting_hooks,
    with_hook,
)
from chancy_runtime.execution.host import Host
from chancy_runtime.execution.observers import (
    InChild,
    ObserveRun,
    RunElsewhere,
    in_child,
    observed,
    run_observers,
)
from chancy_runtime.execution.reporting import bring_back, reported_elsewhere
from chancy_runtime.execution.threads import Threads
from chancy_runtime.isolation import (
    current_scope,
    in_job,
    isolated,
    run_isolated,
)
from chancy_runtime.jobs.registered import NotRegistered
from chancy_runtime.jobs.retries import seconds_until_retry
from chancy_runtime.jobs.rows import changed
from chancy_runtime.supervision.tasks import finish

# The child of the service's logger that logs failed jobs.
FAILURES = "jobs"
# Seconds that jobs have to clean up when the stop of the worker cuts them short.
_CANCEL_TIMEOUT = 1.0
# Seconds between two checks whether a new child has its job.
_START_INTERVAL = 0.1
_UNPROTECTED = (
    "the queue %s runs its jobs with %s, which is not derived from an executor of "
    "chancy_runtime: a plugin's hook that raises an error leaves its job running for good, "
    "a job that raises SystemExit can end the process, and jobs can share one Sentry scope. "
    "Derive it from AsyncExecutor, ThreadedExecutor or ProcessExecutor of chancy_runtime"
)
# Attributes of a job: its observers, if it runs in a thread; the context managers for its
# child process.
_OBSERVERS = "_observers_in_its_thread"
_IN_CHILD = "_entered_in_its_child"
# Arguments of Chancy's ProcessExecutor that have no effect here.
_REPLACED = {
    "mp_context": "leave it out; children are spawned, so that each starts without the "
    "service's threads and locks",
}
# For each executor class and path of a job function: the loaded function, the function to
# call, and the names of its arguments that get the job itself. Services can share it.
_PLANS: dict[tuple[type, str], tuple[object, Callable[..., Any], list[str]]] = {}


class JobExit(RuntimeError):
    """A job raised a BaseException, such as SystemExit, that would end the process."""


class JobMissing(ImportError):
    """The function of a job cannot be imported in this version of the service."""


class JobError(RuntimeError):
    """A job's error as text, because the error itself cannot be pickled."""


class _Contained(Executor):
    """Turns an exception that would end the process into an error of the job.

    A job whose function only a later deployment has is left to that deployment.
    """

    @property
    def host(self) -> Host:
        """The Worker that the executor belongs to."""
        return cast(Host, self.worker)

    @functools.cached_property
    def observers(self) -> list[ObserveRun]:
        """The methods observe_run() of the plugins."""
        return run_observers(self.host.app.plugins.values())

    async def on_job_starting(self, job: QueuedJob) -> QueuedJob:
        plugins = self.host.app.plugins.values()
        return await run_starting_hooks(plugins, job=job, worker=self.worker)

    async def on_job_completed(
        self, *, job: QueuedJob, exc: BaseException | None = None, result: Any = None
    ) -> None:
        """Saves the result, unless the job runs again.

        It does if the stop cut it short, or if only a later version has its function.
        """
        host = self.host
        if host.gives_back:
            return
        missing = isinstance(exc, JobMissing | NotRegistered)
        if missing and await host.leave_to_later(job):
            return
        ended = await run_completed_hooks(
            host.app.plugins.values(),
            job=_ended(job, exc, host),
            worker=self.worker,
            exc=exc,
            result=result,
            report=host.monitor.report,
        )
        if exc is not None:
            self._log_failure(ended, exc)
        host.cancelled.discard(job.claim_id)
        await host.queue_update(ended)
        await host.on_job_completed(queue=self.queue, job=ended)

    def _log_failure(self, job: QueuedJob, error: BaseException) -> None:
        """Logs an error if the job has failed, or a warning if it runs again.

        The end of a cancelled job is neither; its row has the reason already. The line has a
        logger of its own, so that SentryPlugin, which reports the error too, can stop
        Sentry's logging integration from reporting it again.
        """
        if job.claim_id in self.host.cancelled:
            self.host.log.info("the job %s (%s) was cancelled", job.func, job.id)
            return
        failed = job.state == QueuedJob.State.FAILED
        refused = isinstance(error, NotRegistered)
        more = ""
        if not failed:
            due = job.scheduled_at.astimezone(UTC)
            more = f" and runs again at {due:%Y-%m-%dT%H:%M:%SZ}"
        self.host.log.getChild(FAILURES).log(
            logging.ERROR if failed else logging.WARNING,
            "the job %s (%s) failed at attempt %s of %s%s",
            *(job.func, job.id, job.attempts, job.max_attempts),
            f": {error}" if refused else more,
            exc_info=None if refused else error,
        )

    @classmethod
    def get_function_and_kwargs(
        cls, job: QueuedJob
    ) -> tuple[Callable[..., Any], dict[str, Any]]:
        try:
            function, kwargs = super().get_function_and_kwargs(job)
        except (ImportError, AttributeError) as error:
            raise JobMissing(f"{job.func} cannot be imported: {error}") from error
        kwargs.update(dict.fromkeys(_takes_job_in_text(function), job))
        return function, kwargs

    @classmethod
    def prepare_job_for_execution(
        cls, job: QueuedJob
    ) -> tuple[QueuedJob, Callable[..., Any], dict[str, Any]]:
        """Asks Chancy once for each function: its answer takes longer than a short job.

        A subclass that overrides get_function_and_kwargs() is asked for each job.
        """
        own_way = _found_by(cls) is not _found_by(_Contained)
        plan = None if own_way or job.limits else _PLANS.get((cls, job.func))
        if plan is None or plan[0] is not _loaded(job.func):
            with _ExitsContained():
                prepared, function, kwargs = super().prepare_job_for_execution(job)
            function = _contain(function)
            takes_job = [name for name, value in kwargs.items() if value is prepared]
            if not own_way and (loaded := _loaded(job.func)) is not None:
                _PLANS[cls, job.func] = loaded, function, takes_job
            return prepared, function, kwargs
        _, function, takes_job = plan
        kwargs = {**dict(job.kwargs or {}), **dict.fromkeys(takes_job, job)}
        return job, function, kwargs


def _takes_job_in_text(function: Callable[..., Any]) -> list[str]:
    """Returns the arguments for the job itself whose annotations are strings.

    That is each annotation below `from __future__ import annotations`. Chancy 0.26 does
    not read them, and the function misses its argument.
    """
    names = getattr(inspect.unwrap(function), "__globals__", {})
    return [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
        and isinstance(text := parameter.annotation, str)
        and _means_queued_job(text.strip("\"'"), names)
    ]


def _means_queued_job(text: str, names: Mapping[str, Any]) -> bool:
    first, *more = text.split(".")
    if first not in names:  # Its import may be one for type checkers only.
        return text.rpartition(".")[2] == QueuedJob.__name__
    found = names[first]
    for name in more:
        found = getattr(found, name, None)
    return found is QueuedJob


def _found_by(executor: Any) -> object:
    """Returns the function with which an executor finds the functions of jobs."""
    return getattr(executor.get_function_and_kwargs, "__func__", None)


def _ended(job: QueuedJob, error: BaseException | None, host: Host) -> QueuedJob:
    """Returns the job in its new state: ended, or waiting for its next attempt."""
    now = host.server_time()
    if error is None:
        return changed(
            job,
            state=QueuedJob.State.SUCCEEDED,
            completed_at=now,
            attempts=job.attempts + 1,
        )
    text = "".join(traceback.format_exception(error))
    job = changed(
        job,
        attempts=job.attempts + 1,
        errors=[*job.errors, {"traceback": text, "attempt": job.attempts}],
    )
    # A function that is not registered now will not be registered at the next attempt.
    if job.attempts >= job.max_attempts or isinstance(error, NotRegistered):
        return changed(job, state=QueuedJob.State.FAILED, completed_at=now)
    wait = seconds_until_retry(job, host.settings, host.log)
    return changed(
        job,
        state=QueuedJob.State.RETRYING,
        completed_at=None,
        scheduled_at=now + timedelta(seconds=wait),
    )


def _loaded(path: str) -> object:
    """Returns the function at a path, or None if its module is not imported yet."""
    module, _, name = path.rpartition(".")
    return getattr(sys.modules.get(module), name, None)


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
    """Turns a BaseException that would end the process into an error of the job."""

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: object, error: BaseException | None, traceback: object
    ) -> None:
        if not isinstance(error, Exception | asyncio.CancelledError | None):
            raise JobExit(f"the job raised {type(error).__name__}") from error


class AsyncExecutor(_Contained, OpenAsyncExecutor):
    """Runs coroutines in the service's event loop.

    It replaces Chancy's AsyncExecutor in each queue that names that one. A subclass, which a
    queue names by its import path, keeps the protection against bad jobs. It may override
    `get_function_and_kwargs`, which Chancy documents, to give jobs more arguments.
    """

    async def push(self, job: QueuedJob) -> None:
        # It has the scope in which the feeder pushes it, and a context of its own.
        task = asyncio.create_task(self._start(job))
        self.jobs[task] = job
        task.add_done_callback(self.jobs.pop)

    async def _start(self, job: QueuedJob) -> None:
        with in_job():
            try:
                job = await self.on_job_starting(job)
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001
                await self.on_job_completed(job=job, exc=error)
            else:
                await self.run_in_wrapper(job)

    async def run_job(self, job: QueuedJob) -> None:
        try:
            with observed(self.observers, job):
                job, function, kwargs = self.prepare_job_for_execution(job)
                if job.limits:
                    async with asyncio.timeout(self.get_limit(job, Limit.Type.TIME)):
                        result = await function(**kwargs)
                else:
                    result = await function(**kwargs)
            await self.on_job_completed(job=job, result=result)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001
            await self.on_job_completed(job=job, exc=error)

    async def cut_short(self) -> None:
        if tasks := self.cancel_jobs():
            await finish(asyncio.wait(tasks, timeout=_CANCEL_TIMEOUT))


class _Pooled(_Contained):
    """Starts and ends jobs outside of where they run, in the same Sentry scope."""

    @functools.cached_property
    def scopes(self) -> dict[UUID | None, object]:
        """The Sentry scopes of the running jobs, by their claims."""
        return {}

    async def on_job_starting(self, job: QueuedJob) -> QueuedJob:
        self.scopes[job.claim_id] = current_scope()
        starting = super().on_job_starting(job)
        if not with_hook("on_job_starting", self.host.app.plugins.values()):
            return await starting
        # A task has its own context, so context variables that hooks set end with it.
        return await asyncio.create_task(starting)

    async def on_job_completed(
        self, *, job: QueuedJob, exc: BaseException | None = None, result: Any = None
    ) -> None:
        with isolated(self.scopes.pop(job.claim_id, None)):
            await super().on_job_completed(job=job, exc=exc, result=result)


class _IsolatedThreads(Threads):
    """Runs each job in a context of its own and in its Sentry scope.

    Args:
        scopes: The Sentry scopes of the jobs, by their claims.
    """

    def __init__(self, most: int, scopes: Mapping[UUID | None, object]) -> None:
        super().__init__(most)
        self._scopes = scopes

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        scope = self._scopes.get(getattr(args[0], "claim_id", None)) if args else None
        return super().submit(run_isolated, scope, fn, *args, **kwargs)


class ThreadedExecutor(_Pooled, thread.ThreadedExecutor):
    """Runs jobs in threads of the service's process; replaces Chancy's executor."""

    def __init__(self, worker: Any, queue: Queue) -> None:
        super().__init__(worker, queue)
        self.pool = _IsolatedThreads(
            queue.concurrency or self.get_default_concurrency(), self.scopes
        )

    async def on_job_starting(self, job: QueuedJob) -> QueuedJob:
        job = await super().on_job_starting(job)
        vars(job)[_OBSERVERS] = self.observers
        return job

    @classmethod
    def job_wrapper(cls, job: QueuedJob) -> tuple[QueuedJob, Any]:
        with observed(vars(job).pop(_OBSERVERS, ()), job):
            return super().job_wrapper(job)


class ProcessExecutor(_Pooled, OpenProcessExecutor):
    """Runs each job in a child process; replaces Chancy's ProcessExecutor.

    A child runs one job at a time and ends with the service. If a child dies, only its own
    job fails.

    Args:
        maximum_jobs_per_worker: How many jobs a child runs before another takes its
            place; None for any number.
        replaced: Chancy's `mp_context` is refused: children are always spawned.
    """

    def __init__(
        self,
        worker: Any,
        queue: Queue,
        *,
        maximum_jobs_per_worker: int | None = 100,
        **replaced: Never,
    ) -> None:
        refuse_arguments("ProcessExecutor", replaced, _REPLACED)
        most: object = maximum_jobs_per_worker
        if most is not None and (type(most) is not int or most < 1):
            raise WorkersError(
                f"the queue {queue.name} has the maximum_jobs_per_worker {most!r} in its "
                "executor_options: declare it with a number from 1, or with None for any "
                "number of jobs in each child"
            )
        super().__init__(
            worker,
            queue,
            maximum_jobs_per_worker=maximum_jobs_per_worker,
            mp_context=Context(),
        )
        self._runs: dict[UUID | None, RunElsewhere] = {}

    async def on_job_starting(self, job: QueuedJob) -> QueuedJob:
        job = await super().on_job_starting(job)
        scope = self.scopes[job.claim_id]
        entered: list[InChild] = [] if scope is None else [reported_elsewhere]
        if self.observers:
            self._runs[job.claim_id] = run = RunElsewhere(self.observers, job, scope)
            entered += run.for_child
        vars(job)[_IN_CHILD] = entered
        return job

    async def on_job_completed(
        self, *, job: QueuedJob, exc: BaseException | None = None, result: Any = None
    ) -> None:
        if exc is not None:
            bring_back(exc, self.scopes.get(job.claim_id))
        if run := self._runs.pop(job.claim_id, None):
            run.end(exc)
        await super().on_job_completed(job=job, exc=exc, result=result)

    def create_children(self, most: int | None) -> Children:
        self._children = Children(self.on_initialize_worker, most)
        return self._children

    async def limit_time(self, execution: UUID, seconds: int) -> None:
        """Counts the time from the moment at which the child has the job.

        Chancy 0.26 forgets the time limit if the child takes longer than that to start.
        """
        with contextlib.suppress(OSError, EOFError):  # The manager is gone.
            while execution not in self.pids_for_job:
                await asyncio.sleep(_START_INTERVAL)
            await super().limit_time(execution, seconds)

    def end_children(self) -> None:
        self._children.end(_CANCEL_TIMEOUT)
        self.manager.shutdown()

    async def cut_short(self) -> None:
        for task in self.timeouts.values():
            task.cancel()
        with contextlib.suppress(OSError, EOFError):  # The manager is gone.
            for job in self.get_running_jobs():
                await self.cancel_execution(job)
        await finish(self._end_cut_short())

    async def _end_cut_short(self) -> None:
        await asyncio.to_thread(self._children.end, _CANCEL_TIMEOUT)
        # The end of a run uses the manager, so the manager ends last.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CANCEL_TIMEOUT):
                while self.jobs:
                    await asyncio.sleep(_START_INTERVAL)
        await asyncio.to_thread(self.manager.shutdown)

    @classmethod
    def job_wrapper(cls, job: QueuedJob, *state: Any) -> tuple[QueuedJob, Any]:
        with in_child(vars(job).pop(_IN_CHILD, ())), _errors_can_travel():
            job, result = super().job_wrapper(job, *state)
        return job, result if _can_travel(result) else None


@contextlib.contextmanager
def _errors_can_travel() -> Iterator[None]:
    """Replaces an error that another process cannot unpickle by one with its text."""
    try:
        yield
    except MemoryError:
        raise
    except BaseException as error:
        if _can_travel(error):
            raise
        text = "".join(traceback.format_exception(error))
        raise JobError(
            f"the job failed with an error that cannot be pickled:\n{text}"
        ) from None


_HARDENED: dict[type[Executor], type[Executor]] = {
    asyncex.AsyncExecutor: AsyncExecutor,
    thread.ThreadedExecutor: ThreadedExecutor,
    process.ProcessExecutor: ProcessExecutor,
}


class _Moved(abc.ABCMeta):
    """The type of the classes that _moved() creates; a child process creates them again."""


@functools.cache
def _moved(derived: type[Executor], hardened: type[Executor]) -> type[Executor]:
    """Returns a subclass of a class derived from Chancy's executor and of the hardened one.

    Its calls through super() then reach the hardened class first.
    """
    names = {"__module__": derived.__module__, "__qualname__": derived.__qualname__}
    moved: type[Any] = _Moved(derived.__name__, (derived, hardened), names)
    return moved


def _made_again(moved: type[Any]) -> tuple[Any, ...]:
    return _moved, moved.__bases__


copyreg.pickle(_Moved, _made_again)


def executor_class(queue: Queue) -> Callable[..., Executor]:
    """Returns the class that runs the jobs of a queue.

    Rows name Chancy's executors, so that any worker can read them; the hardened class
    replaces the named class, also as the base of a class of the service.

    Raises:
        ImportError, AttributeError, ValueError: The queue names a class that cannot be
            imported.
    """
    found: Callable[..., Executor] = pkgutil.resolve_name(queue.executor)
    if isinstance(found, type) and not issubclass(found, _Contained):
        for theirs, hardened in _HARDENED.items():
            if issubclass(found, theirs):
                return hardened if found is theirs else _moved(found, hardened)
    return found


async def create_executor(worker: Host, queue: Queue) -> Executor:
    """Returns the executor of a queue; warns about one that does not protect jobs.

    Raises:
        ImportError, AttributeError, ValueError: The queue names a class that cannot be
            imported, or that is not registered.
    """
    worker.registered.check_executor(queue.executor)
    kind = executor_class(queue)
    create = functools.partial(kind, worker, queue, **(queue.executor_options or {}))
    if kind is ProcessExecutor:
        # It starts a process and waits for it, so it must not block the event loop.
        return await asyncio.to_thread(create)
    executor = create()
    if not isinstance(executor, _Contained):
        worker.log.warning(_UNPROTECTED, queue.name, queue.executor)
    return executor


def _can_travel(value: object) -> bool:
    """Whether another process can unpickle the value."""
    try:
        pickle.loads(pickle.dumps(value))
    except Exception:  # noqa: BLE001  # pickle raises whatever the value does
        return False
    return True
