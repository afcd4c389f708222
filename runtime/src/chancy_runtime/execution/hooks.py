"""Runs the hooks of plugins; the job's row is right even if a hook fails.

In Chancy 0.26, a hook that raises an error or forgets `return job` leaves the job's row
running for as long as the worker lives.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from chancy import QueuedJob
from chancy.plugin import Plugin

from chancy_runtime.supervision.tasks import cancellations

Report = Callable[..., None]


def with_hook(name: str, plugins: Iterable[Plugin]) -> list[Plugin]:
    """Returns the plugins that define a hook.

    In the others the hook raises NotImplementedError; calling that takes as long as a short
    job.
    """
    inherited = getattr(Plugin, name)
    return [
        plugin
        for plugin in plugins
        if getattr(getattr(plugin, name), "__func__", None) is not inherited
    ]


async def run_starting_hooks(
    plugins: Iterable[Plugin], *, job: QueuedJob, worker: Any
) -> QueuedJob:
    """Returns the job after the hooks `on_job_starting` of the plugins.

    Raises:
        TypeError: A hook did not return a job.
        Exception: Any error that a hook raised.
    """
    for plugin in with_hook("on_job_starting", plugins):
        try:
            with _cancellation_contained():
                returned = await plugin.on_job_starting(job=job, worker=worker)
        except NotImplementedError:  # Chancy's sign for a plugin without this hook
            continue
        job = _job(returned, plugin, "on_job_starting")
    return job


async def run_completed_hooks(
    plugins: Iterable[Plugin],
    *,
    job: QueuedJob,
    worker: Any,
    exc: BaseException | None,
    result: Any,
    report: Report,
) -> QueuedJob:
    """Returns the job after the hooks `on_job_completed` of the plugins.

    Args:
        report: Called with a message, an error and the tag `task` for each hook that
            failed; the job has ended in spite of it.
    """
    for plugin in with_hook("on_job_completed", plugins):
        try:
            with _cancellation_contained():
                returned = await plugin.on_job_completed(
                    job=job, worker=worker, exc=exc, result=result
                )
            job = _job(returned, plugin, "on_job_completed")
        except NotImplementedError:  # Chancy's sign for a plugin without this hook
            continue
        except Exception as error:  # noqa: BLE001  # whatever a plugin raises
            _report(plugin, "on_job_completed", job, error, report)
    return job


async def run_updated_hooks(
    hooks: Iterable[Plugin], *, job: QueuedJob, worker: Any, report: Report
) -> None:
    """Tells plugins of a saved result; the error of one does not keep it from others."""
    for plugin in hooks:
        try:
            with _cancellation_contained():
                await plugin.on_job_updated(job=job, worker=worker)
        except Exception as error:  # noqa: BLE001  # whatever a plugin raises
            _report(plugin, "on_job_updated", job, error, report)


def _report(
    plugin: Plugin, hook: str, job: QueuedJob, error: Exception, report: Report
) -> None:
    name = type(plugin).__name__
    report(f"{name}.{hook} failed for the job {job.func} ({job.id})", error, task=name)


@contextmanager
def _cancellation_contained() -> Iterator[None]:
    """Turns a CancelledError of something that a hook waited for into a plain error."""
    before = cancellations()
    try:
        yield
    except asyncio.CancelledError as error:
        if cancellations() > before:
            raise
        raise RuntimeError("a task that the hook awaited was cancelled") from error


def _job(returned: object, plugin: Plugin, hook: str) -> QueuedJob:
    if not isinstance(returned, QueuedJob):
        raise TypeError(
            f"{type(plugin).__name__}.{hook} returned {type(returned).__name__}: "
            "return the job"
        )
    return returned
