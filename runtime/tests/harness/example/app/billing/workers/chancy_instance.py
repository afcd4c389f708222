"""Holds the service's one Chancy for everyone who pushes jobs."""

from chancy_runtime import Chancy

# A list, because a test may run two apps at once; the last open one is returned.
_instances: list[Chancy] = []


def set_chancy(chancy: Chancy) -> None:
    """Makes `chancy` the one that `get_chancy()` returns while it is open."""
    _instances[:] = [*(each for each in _instances if each.is_open), chancy]


def get_chancy() -> Chancy:
    """Returns the running Chancy, to push jobs with.

    Raises:
        RuntimeError: Before the start, after the shutdown, and in the children of
            a process executor.
    """
    for chancy in reversed(_instances):
        if chancy.is_open:
            return chancy
    raise RuntimeError(
        "Chancy is not running in this process: enter initialize_workers() of "
        f"{__package__}.chancy_initialization first, as the lifespan in main.py does."
    )
