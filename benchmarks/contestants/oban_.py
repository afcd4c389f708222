"""The workers of Oban for Python; its own command, oban start, runs them."""

import itertools
import time

from oban import worker
from oban.job import Job


@worker(queue="default")
class Noop:
    async def process(self, job: Job) -> None:
        """Does nothing."""


@worker(queue="default")
class Probe:
    async def process(self, job: Job) -> None:
        """Prints the time from its push to its start."""
        print("probe", time.monotonic() - job.args["sent"], flush=True)


@worker(queue="default")
class Tick:
    async def process(self, job: Job) -> None:
        """Prints a line at each hundredth run."""
        if next(ticks) % 100 == 0:
            print("tick", flush=True)


ticks = itertools.count(1)
