"""The time that a start may take, whatever the database does."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

# A start that fails has ended after so many seconds.
PROMISED_SECONDS = 15.0
# All steps of a start together, then the end of a Worker that did not start, then the end of
# the pool. A test adds them up.
START_SECONDS = 11.0
UNDO_SECONDS = 1.0
CLOSE_SECONDS = 1.0


class Budget:
    """The seconds that the steps of one start share.

    Only the steps count, not what a service does between them.
    """

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Gives the next start its full time."""
        self._left = START_SECONDS

    @contextmanager
    def step(self) -> Iterator[float]:
        """Yields how many seconds are left for a step, and takes off what it takes."""
        since = time.monotonic()
        try:
            yield max(0.0, self._left)
        finally:
            self._left -= time.monotonic() - since
