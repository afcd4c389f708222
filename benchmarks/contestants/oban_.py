"""Oban for Python, run by its own command: oban start, which finds these workers."""

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
        """Prints how long after its push it started."""
        print("probe", time.monotonic() - job.args["sent"], flush=True)


@worker(queue="default")
class Tick:
    async def process(self, job: Job) -> None:
        """Says so at each hundredth."""
        if next(ticks) % 100 == 0:
            print("tick", flush=True)


ticks = itertools.count(1)
