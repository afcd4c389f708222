"""The time that a start may take, whatever the database does."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

# The most seconds that a failing start takes.
PROMISED_SECONDS = 15.0
# Seconds for all steps of a start, then for the end of a Worker that did not start, then for
# the end of the pool. A test checks their sum.
START_SECONDS = 11.0
UNDO_SECONDS = 1.0
CLOSE_SECONDS = 1.0


class Budget:
    """The seconds that the steps of one start share.

    Only the steps count, not the service's own code between them.
    """

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Gives the next start its full time."""
        self._left = START_SECONDS

    @contextmanager
    def step(self) -> Iterator[float]:
        """Yields the seconds that are left for a step, and subtracts those that it takes."""
        since = time.monotonic()
        try:
            yield max(0.0, self._left)
        finally:
            self._left -= time.monotonic() - since
