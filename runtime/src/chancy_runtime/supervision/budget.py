"""The time that a start may take, whatever the database does."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

# All steps of a start together: a start that fails does so within 15 s, and this leaves two
# for the way out.
START_SECONDS = 13.0


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
