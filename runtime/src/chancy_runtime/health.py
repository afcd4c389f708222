"""Finds out which parts of the running workers do not work."""

import time
from collections.abc import Callable

from chancy_runtime.app import Chancy
from chancy_runtime.modes import Mode

_PROBE_TIMEOUT = 5


async def find_problems(get_chancy: Callable[[], Chancy]) -> list[str]:
    """Returns what does not work, in words that an outsider may read.

    In a process that only pushes, only the database has to work: it must take pushes.
    Where the workers are off, that is the problem that is returned.

    Args:
        get_chancy: Returns the running Chancy, or raises a RuntimeError.
    """
    try:
        chancy = get_chancy()
    except RuntimeError:
        return ["the workers have not started"]
    if chancy.mode is Mode.OFF:
        return ["the workers are off"]
    problems = [f"{task} is down" for task in sorted(chancy.monitor.failing)]
    if chancy.mode is Mode.RUN and not chancy.workers:
        problems.append("the workers have not started")
    for worker in chancy.workers:
        if time.monotonic() - worker.last_heartbeat > worker.heartbeat_timeout / 2:
            problems.append("the last heartbeat is old")
    if not await chancy.is_writable(timeout=_PROBE_TIMEOUT):
        problems.append("the database does not take writes")
    return problems
