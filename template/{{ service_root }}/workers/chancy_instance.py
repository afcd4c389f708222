"""Holds the service's one Chancy for everyone who pushes jobs."""

from .chancy_app import Chancy

_chancy: Chancy | None = None


def set_chancy(chancy: Chancy) -> None:
    """Makes `chancy` the one that `get_chancy()` returns while it is open."""
    global _chancy
    _chancy = chancy


def get_chancy() -> Chancy:
    """Returns the running Chancy, to push jobs with.

    Raises:
        RuntimeError: Before the start, after the shutdown, and in the children of
            a process executor.
    """
    if _chancy is None or _chancy.pool.closed:
        raise RuntimeError(
            "Chancy is not running in this process: enter initialize_workers() of "
            f"{__package__}.chancy_initialization first, as the lifespan in main.py does."
        )
    return _chancy
