"""Pushes jobs by a queue's own bulk push, 1,000 in a call; prints how many a second.

python bulk.py NAME COUNT [keys]
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib import import_module
from typing import Any, TypeAlias

BATCH = 1000
URL = os.environ["DATABASE_URL"]
Push: TypeAlias = Callable[[list[dict[str, int]]], Awaitable[object]]


@asynccontextmanager
async def chancy(app: Any, keys: bool) -> AsyncIterator[Push]:
    from chancy import Job

    async def push(arguments: list[dict[str, int]]) -> None:
        jobs = [
            Job(
                func="app.billing.workers.noop.worker.noop",
                kwargs=each,
                unique_key=f"key {each['n']}" if keys else None,
            )
            for each in arguments
        ]
        async for _ in app.push_many(jobs):
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

    async def push(arguments: list[dict[str, int]]) -> None:
        count = len(arguments)
        payloads = [b'{"n": %d}' % each["n"] for each in arguments]
        await queries.enqueue(["noop"] * count, payloads, [0] * count)

    yield push
    await connection.close()


@asynccontextmanager
async def procrastinate(keys: bool) -> AsyncIterator[Push]:
    module = import_module("procrastinate_")
    async with module.app.open_async():
        yield lambda arguments: module.noop.batch_defer_async(*arguments)


@asynccontextmanager
async def oban(keys: bool) -> AsyncIterator[Push]:
    from oban import Oban
    from psycopg_pool import AsyncConnectionPool

    noop = import_module("oban_").Noop
    async with AsyncConnectionPool(URL, min_size=1) as pool:
        queue = Oban(pool=pool)
        yield lambda arguments: queue.enqueue_many([noop.new(a) for a in arguments])


async def main(name: str, count: int, keys: bool) -> None:
    async with globals()[name](keys) as push:
        await push([{"n": -n} for n in range(1, BATCH + 1)])
        since = time.perf_counter()
        for start in range(0, count, BATCH):
            await push([{"n": n} for n in range(start, start + BATCH)])
        print(count / (time.perf_counter() - since))


def runner(name: str) -> Callable[[Any], None]:
    """On uvloop where the queue's own commands run on it."""
    if name in ("pgqueuer", "oban"):
        return import_module("uvloop").run  # type: ignore[no-any-return]
    return asyncio.run


runner(sys.argv[1])(main(sys.argv[1], int(sys.argv[2]), "keys" in sys.argv))
