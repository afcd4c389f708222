"""Plugins that observe pushes and runs of jobs, for metrics and traces.

Chancy's hooks run before and after a job, outside of its task or thread. A plugin may also
have these two methods, each of which returns a context manager:

    observe_push(jobs)  Entered around the statement of a push. It yields the jobs to push.
    observe_run(job)    Entered around the job's function, in its task or thread. It yields
                        None, or an InChild for a job that runs in a child process.
"""

import contextvars
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import TypeAlias

from chancy import Job, QueuedJob
from chancy.plugin import Plugin

from chancy_runtime.isolation import isolated

# Returns the context manager that a child process enters around its part of a job. It is
# sent to the child, so it must be picklable.
InChild: TypeAlias = Callable[[], AbstractContextManager[object]]
ObservePush: TypeAlias = Callable[[list[Job]], AbstractContextManager[list[Job]]]
ObserveRun: TypeAlias = Callable[[QueuedJob], AbstractContextManager[InChild | None]]

_UNOBSERVED: AbstractContextManager[list[InChild]] = nullcontext([])


def with_meta(job: Job, name: str, value: object) -> Job:
    """Returns the job with one more entry in its meta, if its meta is a dictionary."""
    meta = job.meta or {}
    return replace(job, meta={**meta, name: value}) if isinstance(meta, dict) else job


def headers_in(job: QueuedJob, name: str) -> dict[str, str]:
    """Returns an entry of a job's meta as headers; other types than text are left out."""
    found = job.meta.get(name)
    entries = found.items() if isinstance(found, dict) else ()
    return {key: value for key, value in entries if isinstance(value, str)}


def run_observers(plugins: Iterable[Plugin]) -> list[ObserveRun]:
    """Returns the methods observe_run() of the plugins that have one."""
    return [each.observe_run for each in plugins if hasattr(each, "observe_run")]


@contextmanager
def observed_push(plugins: Iterable[Plugin], jobs: list[Job]) -> Iterator[list[Job]]:
    """Runs its block, a push, in the plugins' context managers; yields the jobs to push."""
    with ExitStack() as stack:
        for plugin in plugins if jobs else ():
            observe: ObservePush | None = getattr(plugin, "observe_push", None)
            if observe:
                jobs = stack.enter_context(observe(jobs))
        yield jobs


def observed(
    observers: Sequence[ObserveRun], job: QueuedJob
) -> AbstractContextManager[list[InChild]]:
    """Returns the context manager for a run; it costs nothing without observers."""
    return _observed(observers, job) if observers else _UNOBSERVED


@contextmanager
def _observed(
    observers: Sequence[ObserveRun], job: QueuedJob
) -> Iterator[list[InChild]]:
    with ExitStack() as stack:
        entered = [stack.enter_context(observe(job)) for observe in observers]
        yield [each for each in entered if each]


@contextmanager
def in_child(entered: Iterable[InChild]) -> Iterator[None]:
    """Runs its block, a child's part of a job, in the observers' context managers."""
    with ExitStack() as stack:
        for enter in entered:
            stack.enter_context(enter())
        yield


class RunElsewhere:
    """An observed run of a job in a child process: this process begins and ends it.

    Like a job in a thread, it has its own context.

    Attributes:
        for_child: What the child must enter around its part of the job.

    Args:
        scope: The Sentry scope of the job.
    """

    def __init__(
        self, observers: Sequence[ObserveRun], job: QueuedJob, scope: object
    ) -> None:
        self._context = contextvars.copy_context()
        self.for_child = self._context.run(self._begin, observers, job, scope)

    def _begin(
        self, observers: Sequence[ObserveRun], job: QueuedJob, scope: object
    ) -> list[InChild]:
        with ExitStack() as stack:
            stack.enter_context(isolated(scope))
            entered = stack.enter_context(observed(observers, job))
            self._stack = stack.pop_all()
        return entered

    def end(self, error: BaseException | None) -> None:
        """Ends the run."""
        if error is None:
            self._context.run(self._stack.__exit__, None, None, None)
        else:
            trace = error.__traceback__
            self._context.run(self._stack.__exit__, type(error), error, trace)
