"""pgqueuer, run like its command pgq run does, on uvloop.

The command itself fails with the typer version that pgqueuer requires (1.6.0).
"""

import itertools
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pgqueuer
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.db import AsyncpgDriver
from pgqueuer.models import Job


@asynccontextmanager
async def create() -> AsyncIterator[PgQueuer]:
    connection = await asyncpg.connect(os.environ["DATABASE_URL"])
    queue = PgQueuer(AsyncpgDriver(connection))

    @queue.entrypoint("noop")
    async def noop(job: Job) -> None:
        """Does nothing."""

    @queue.entrypoint("probe")
    async def probe(job: Job) -> None:
        """Prints the time from its push to its start."""
        print("probe", time.monotonic() - float(job.payload or b"0"), flush=True)

    ticks = itertools.count(1)

    @queue.entrypoint("tick")
    async def tick(job: Job) -> None:
        """Prints a line at each hundredth run."""
        if next(ticks) % 100 == 0:
            print("tick", flush=True)

    yield queue
    await connection.close()


if __name__ == "__main__":
    uvloop.run(pgqueuer.run(create, batch_size=int(sys.argv[1])))
