"""What a process does with the workers of its services: it runs them, pushes, or neither.

The environment variable WORKERS_MODE decides it for `initialize_workers()`, as the lifespan
of an API enters it. The command `run` and the fixtures of `chancy_runtime.testing` always
run workers.
"""

import os
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from chancy_runtime.errors import WorkersError

VARIABLE = "WORKERS_MODE"


class Mode(StrEnum):
    """What `initialize_workers()` does in this process.

    RUN declares, schedules and runs the Workers. PUSH opens Chancy for pushes and nothing
    else. OFF touches no database.
    """

    RUN = "run"
    PUSH = "push"
    OFF = "off"


@dataclass(frozen=True, kw_only=True)
class Process:
    """The kind of this process, and with it the Workers that run here.

    Args:
        kind: "api", "own" for the one of the command `run`, or "any" where every Worker
            runs, as in a test.
        tags: Of Workers; if there are any, those that have one of them run, whatever
            their kind.
    """

    kind: str = "api"
    tags: frozenset[str] = frozenset()

    def runs(self, *, process: str | None, tags: Collection[str]) -> bool:
        """Whether a Worker runs here.

        Args:
            process: The kind of process that the Worker is for; None for each.
            tags: The Worker's.
        """
        if self.tags:
            return not self.tags.isdisjoint(tags)
        return self.kind == "any" or process in (None, self.kind)


# Of the process and not of a service: two services in it have the same.
_this = Process()


def this_process() -> Process:
    """Returns the kind of this process, and the tags of its Workers."""
    return _this


def become(process: Process) -> None:
    """Makes this process one of another kind, before a service starts in it."""
    global _this
    _this = process


def workers_mode(unset: str = Mode.RUN) -> Mode:
    """Returns what `initialize_workers()` does in this process.

    Args:
        unset: The service's own choice, which counts where WORKERS_MODE is not set.

    Raises:
        WorkersError: WORKERS_MODE has another value.
    """
    if _this.kind != "api":
        return Mode.RUN
    value = os.environ.get(VARIABLE) or unset
    try:
        return Mode(value)
    except ValueError:
        raise WorkersError(
            f"{VARIABLE} is {value!r}, which is not a mode: set it to run, push or off, "
            "or unset it for what the service chose"
        ) from None
