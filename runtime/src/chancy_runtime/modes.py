"""Whether a process runs the workers of its services, only pushes jobs, or does neither.

The environment variable WORKERS_MODE decides this when the lifespan of an API enters
`initialize_workers()`. The command `run` and the fixtures of `chancy_runtime.testing`
always run workers.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from chancy_runtime.errors import WorkersError

VARIABLE = "WORKERS_MODE"


class Mode(StrEnum):
    """What `initialize_workers()` does in this process.

    RUN declares queues, schedules cron jobs and runs the Workers. PUSH only opens Chancy for
    pushes. OFF touches no database.
    """

    RUN = "run"
    PUSH = "push"
    OFF = "off"


@dataclass(frozen=True, kw_only=True)
class Process:
    """The kind of this process, and with it the Workers that run here.

    Args:
        kind: "api", "own" (the process of the command `run`), or "any", where every Worker
            runs (in tests).
        tags: If there are any, the Workers that have one of these tags run, whatever
            process they are for.
    """

    kind: str = "api"
    tags: frozenset[str] = frozenset()

    def runs(self, *, process: str | None, tags: Collection[str]) -> bool:
        """Whether a Worker runs here.

        Args:
            process: The kind of process that the Worker is for; None for every kind.
            tags: The Worker's tags.
        """
        if self.tags:
            return not self.tags.isdisjoint(tags)
        return self.kind == "any" or process in (None, self.kind)


# Global, because all services in a process share it.
_this = Process()


def this_process() -> Process:
    """Returns the kind of this process, and the tags of its Workers."""
    return _this


def become(process: Process) -> None:
    """Sets the kind of this process, before a service starts in it."""
    global _this
    _this = process


def workers_mode(unset: str = Mode.RUN) -> Mode:
    """Returns what `initialize_workers()` does in this process.

    Args:
        unset: The service's own choice, which applies where WORKERS_MODE is not set.

    Raises:
        WorkersError: WORKERS_MODE is not a mode.
    """
    if _this.kind != "api":
        return Mode.RUN
    value = os.environ.get(VARIABLE) or unset
    try:
        return Mode(value)
    except ValueError:
        raise WorkersError(
            f"{VARIABLE} is {value!r}, which is not a mode: set it to run, push or off, "
            "or unset it for the service's own mode"
        ) from None
