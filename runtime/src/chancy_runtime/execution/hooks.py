"""Hooks of plugins: which have one, and what becomes of a job whose hook goes wrong."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

from chancy import QueuedJob
from chancy.plugin import Plugin


def contain_hooks(plugin: Plugin, report: Callable[..., None]) -> None:
    """Makes the failure of a hook one of the hook, or of the job that was to start.

    In Chancy 0.26, a hook that raises or forgets `return job` leaves the job's row
    running for as long as the worker lives.

    Args:
        plugin: The hooks that it has are replaced.
        report: Hears of a hook that failed after a job had ended.
    """
    starting, completed = plugin.on_job_starting, plugin.on_job_completed
    name = type(plugin).__name__

    async def on_job_starting(**arguments: Any) -> QueuedJob:
        return _job(await starting(**arguments), f"{name}.on_job_starting")

    async def on_job_completed(*, job: QueuedJob, **arguments: Any) -> QueuedJob:
        hook = f"{name}.on_job_completed"
        try:
            return _job(await completed(job=job, **arguments), hook)
        except NotImplementedError:  # Chancy's sign for a plugin without this hook
            raise
        except Exception as error:  # noqa: BLE001  # the job ended all the same
            report(f"{hook} failed for the job {job.func} ({job.id})", error, task=name)
            return job

    for hook in (on_job_starting, on_job_completed):
        if _has(type(plugin), hook.__name__):
            setattr(plugin, hook.__name__, hook)


def with_hook(name: str, plugins: Iterable[Plugin]) -> list[Plugin]:
    """Returns the plugins that have a hook of their own.

    Asking each of the others as well takes as long as a short job itself.
    """
    return [plugin for plugin in plugins if _has(type(plugin), name)]


@functools.cache
def _has(kind: type[Plugin], hook: str) -> bool:
    return getattr(kind, hook) is not getattr(Plugin, hook)


def _job(returned: object, hook: str) -> QueuedJob:
    if not isinstance(returned, QueuedJob):
        raise TypeError(f"{hook} returned {type(returned).__name__}: return the job")
    return returned
