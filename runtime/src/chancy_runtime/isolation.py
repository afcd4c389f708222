"""Keeps a job's Sentry scope, context variables and child processes apart from other jobs."""

import contextvars
import ctypes
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
# https://man7.org/linux/man-pages/man2/prctl.2.html
_PR_SET_PDEATHSIG = 1
_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_is_in_job: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "chancy_runtime_is_in_job", default=False
)


def _sentry() -> Any:
    """The module sentry_sdk where it is in use, or None."""
    sdk: Any = sys.modules.get("sentry_sdk")
    # Versions before 2 have neither, nor has a module that is still being imported.
    if not hasattr(sdk, "get_client") or not hasattr(sdk, "isolation_scope"):
        return None
    return sdk if sdk.get_client().is_active() else None


def current_scope() -> object:
    """Sentry's isolation scope of this context, or None where Sentry is not in use."""
    sdk = _sentry()
    return sdk and sdk.get_isolation_scope()


@contextmanager
def isolated(scope: Any = None) -> Iterator[None]:
    """Runs its block in a Sentry isolation scope of its own, where Sentry is in use.

    Contexts are copied for each asyncio task, but the copies share one scope: without
    this, the user and the tags that one job sets are reported with another job's failure.
    https://docs.sentry.io/platforms/python/enriching-events/scopes/

    Args:
        scope: A result of current_scope() to continue with; by default a new scope.
    """
    sdk = _sentry()
    if sdk is None:
        yield
        return
    if scope is not None:
        with sdk.scope.use_isolation_scope(scope):
            # The thread's current scope may still have data of an earlier job.
            sdk.get_current_scope().clear()
            yield
        return
    with sdk.isolation_scope() as scope:
        # It starts as a copy: tags that the service has set for all events stay.
        scope.clear_breadcrumbs()
        scope.set_new_propagation_context()
        yield


def run_isolated(
    scope: object, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs
) -> R:
    """Calls a function in a copy of the current context and a scope of its own.

    A thread or process that runs one job after another would keep its context variables.

    Args:
        scope: As for isolated().
    """

    def call() -> R:
        with isolated(scope), in_job():
            return function(*args, **kwargs)

    return contextvars.copy_context().run(call)


@contextmanager
def in_job() -> Iterator[None]:
    """Marks its block as a job, so that a process which the job forks ends with it."""
    _end_forks_of_jobs()
    token = _is_in_job.set(True)
    try:
        yield
    finally:
        _is_in_job.reset(token)


@functools.cache
def _end_forks_of_jobs() -> None:
    """From now on, a process that a job forks has the default signal handlers.

    With the server's handlers it would not end at SIGTERM, which multiprocessing.Pool
    sends before it waits. It would also outlive the service and keep the port open.
    """
    # Loaded before a fork: the loader's lock may be held at that moment.
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    thread = threading.local()

    def before() -> None:
        # A signal that arrives before the child has its own handlers would be lost:
        # Python clears the signals that are pending when a child starts.
        if _is_in_job.get():
            thread.parent = os.getpid()
            thread.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING_SIGNALS)

    def in_child() -> None:
        if not _is_in_job.get():
            return
        for number in _ENDING_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != thread.parent:  # It has ended before.
                os._exit(1)
        restore()

    def restore() -> None:
        if _is_in_job.get():
            signal.pthread_sigmask(signal.SIG_SETMASK, thread.mask)

    os.register_at_fork(before=before, after_in_parent=restore, after_in_child=in_child)
