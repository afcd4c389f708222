"""Pushes jobs by a queue's own bulk push, 1,000 in a transaction; prints jobs per second.

python bulk.py NAME SECONDS [keys]
"""

import asyncio
import itertools
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from typing import Any, TypeAlias

BATCH = 1000
URL = os.environ["DATABASE_URL"]
Batches: TypeAlias = Iterator[list[dict[str, int]]]
Push: TypeAlias = Callable[[Batches], Awaitable[object]]


@asynccontextmanager
async def chancy(app: Any, keys: bool) -> AsyncIterator[Push]:
    from chancy import Job

    async def push(batches: Batches) -> None:
        jobs = (
            Job(
                func="app.billing.workers.noop.worker.noop",
                kwargs=arguments,
                unique_key=f"key {arguments['n']}" if keys else None,
            )
            for batch in batches
            for arguments in batch
        )
        async for _ in app.push_many(jobs, batch_size=BATCH):
            pass

    async with app:
        yield push


def rendered(keys: bool) -> AbstractAsyncContextManager[Push]:
    sys.path.insert(0, "")
    module = import_module("app.billing.workers.chancy_initialization")
    return chancy(module.create_chancy(), keys)


def plain(keys: bool) -> AbstractAsyncContextManager[Push]:
    return chancy(import_module("plain_chancy").create_chancy(URL), keys)


@asynccontextmanager
async def pgqueuer(keys: bool) -> AsyncIterator[Push]:
    import asyncpg
    from pgqueuer.db import AsyncpgDriver
    from pgqueuer.queries import Queries

    connection = await asyncpg.connect(URL)
    queries = Queries(AsyncpgDriver(connection))

    async def push(batches: Batches) -> None:
        for batch in batches:
            payloads = [b'{"n": %d}' % arguments["n"] for arguments in batch]
            await queries.enqueue(["noop"] * len(batch), payloads, [0] * len(batch))

    yield push
    await connection.close()


@asynccontextmanager
async def procrastinate(keys: bool) -> AsyncIterator[Push]:
    module = import_module("procrastinate_")

    async def push(batches: Batches) -> None:
        for batch in batches:
            await module.noop.batch_defer_async(*batch)

    async with module.app.open_async():
        yield push


@asynccontextmanager
async def oban(keys: bool) -> AsyncIterator[Push]:
    from oban import Oban
    from psycopg_pool import AsyncConnectionPool

    noop = import_module("oban_").Noop

    async def push(batches: Batches) -> None:
        for batch in batches:
            await queue.enqueue_many([noop.new(arguments) for arguments in batch])

    async with AsyncConnectionPool(URL, min_size=1) as pool:
        queue = Oban(pool=pool)
        yield push


def batches(numbers: Iterator[int], seconds: float) -> Batches:
    """Yields batches of arguments until the seconds are over."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        yield [{"n": next(numbers)} for _ in range(BATCH)]


async def main(name: str, seconds: float, keys: bool) -> None:
    numbers = itertools.count()
    async with globals()[name](keys) as push:
        await push(batches(numbers, 0.1 * seconds))
        since, before = time.perf_counter(), next(numbers)
        await push(batches(numbers, seconds))
        count = next(numbers) - before - 1
        print(count / (time.perf_counter() - since))


def runner(name: str) -> Callable[[Any], None]:
    """Returns the function that runs a coroutine, on uvloop if the queue's commands do."""
    if name in ("pgqueuer", "oban"):
        return import_module("uvloop").run  # type: ignore[no-any-return]
    return asyncio.run


runner(sys.argv[1])(main(sys.argv[1], float(sys.argv[2]), "keys" in sys.argv))
