"""The app of procrastinate; its own command, procrastinate worker, runs it."""

import itertools
import os
import time

from procrastinate import App, PsycopgConnector

app = App(
    connector=PsycopgConnector(
        conninfo=os.environ["DATABASE_URL"],
        min_size=1,
        max_size=int(os.environ.get("POOL", "4")),
    )
)


@app.task(name="noop", queue="default")
async def noop() -> None:
    """Does nothing."""


@app.task(name="probe", queue="default")
async def probe(sent: float) -> None:
    """Prints the time from its push to its start."""
    print("probe", time.monotonic() - sent, flush=True)


@app.task(name="tick", queue="default")
async def tick() -> None:
    """Prints a line at each hundredth run."""
    if next(ticks) % 100 == 0:
        print("tick", flush=True)


ticks = itertools.count(1)
