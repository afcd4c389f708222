"""Holds the service's one Chancy for everyone who pushes jobs."""

import weakref

from chancy_runtime import Chancy

# Weak references, because a test may start many apps, and two at the same time.
_instances: list[weakref.ref[Chancy]] = []


def set_chancy(chancy: Chancy) -> None:
    """Makes `chancy` the one that `get_chancy()` returns while it is open."""
    _instances.append(weakref.ref(chancy))


def get_chancy() -> Chancy:
    """Returns the running Chancy, to push jobs with.

    Raises:
        RuntimeError: Before the start, after the shutdown, and in the children of
            a process executor.
    """
    for instance in reversed(_instances):
        chancy = instance()
        if chancy and chancy.is_open:
            return chancy
    raise RuntimeError(
        "Chancy is not running in this process: enter initialize_workers() of "
        f"{__package__}.chancy_initialization first, as the lifespan in main.py does."
    )
