"""Plain Chancy, tuned by hand, with which the rendered workers are compared first."""

import asyncio
import itertools
import logging
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chancy import Chancy, Queue, Worker, job
from chancy.plugins.cron import Cron
from chancy.plugins.leadership import Leadership
from chancy.plugins.pruner import Pruner
from chancy.plugins.recovery import Recovery
from chancy.plugins.sentry import SentryPlugin


@job(queue="default")
async def noop() -> None:
    """Does nothing."""


@job(queue="default")
async def probe(*, sent: float) -> None:
    """Prints the time from its push to its start."""
    print("probe", time.monotonic() - sent, flush=True)


@job(queue="default")
async def rest() -> None:
    """Waits like for an answer from the network."""
    await asyncio.sleep(0.05)


@job(queue="default")
async def tick() -> None:
    """Prints a line at each hundredth run."""
    if next(ticks) % 100 == 0:
        print("tick", flush=True)


ticks = itertools.count(1)


def create_chancy(url: str) -> Chancy:
    logging.basicConfig(level=logging.WARNING)
    return Chancy(
        url,
        prefix="billing_",
        min_connection_pool_size=5,
        max_connection_pool_size=10,
        no_default_plugins=True,
        plugins=[Leadership(), Pruner(), Recovery(), Cron(), SentryPlugin()],
        log=logging.getLogger("workers"),
    )


@asynccontextmanager
async def initialize_workers(url: str, concurrency: int) -> AsyncIterator[None]:
    async with create_chancy(url) as chancy:
        queue = Queue(
            "default",
            executor=Chancy.Executor.Async,
            concurrency=concurrency,
            eager_polling=True,
        )
        await chancy.declare(queue, upsert=True)
        async with Worker(chancy, register_signal_handlers=False):
            yield


async def main(command: str, url: str, concurrency: int = 100) -> None:
    if command == "install":
        async with create_chancy(url) as chancy:
            await chancy.migrate()
    else:
        async with initialize_workers(url, concurrency):
            await asyncio.Event().wait()


if __name__ == "__main__":
    # Rows name the jobs plain_chancy.noop and so on, not __main__.noop.
    asyncio.run(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:])))
