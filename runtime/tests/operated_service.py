"""A service whose jobs run until a test ends them, with one queue for each executor."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from chancy_runtime import (
    Chancy,
    Cron,
    Leadership,
    Queue,
    Recovery,
    SentryPlugin,
    Settings,
    Worker,
    declare_queues,
    job,
)

from harness.recorder import plain_chancy

# Longer than a test: workers learn of changes only from notifications.
_NEVER = 600
QUEUES = [
    Queue(
        executor.name.lower(),
        executor=executor,
        concurrency=concurrency,
        polling_interval=_NEVER,
        eager_polling=True,
    )
    for executor, concurrency in (
        (Chancy.Executor.Async, 10),
        (Chancy.Executor.Threaded, 2),
        (Chancy.Executor.Process, 1),
    )
]
end_of_threads = threading.Event()


@job(queue="async")
async def succeeds() -> None: ...


@job(queue="async", max_attempts=3)
async def waits(*, started: str) -> None:
    Path(started).touch()
    await asyncio.sleep(600)


@job(queue="threaded", max_attempts=3)
def waits_in_a_thread(*, started: str) -> None:
    Path(started).touch()
    end_of_threads.wait(600)


@job(queue="process", max_attempts=3)
def waits_in_a_process(*, started: str) -> None:
    Path(started).touch()
    time.sleep(600)


@asynccontextmanager
async def working(url: str) -> AsyncIterator[Worker]:
    """Runs the service's Worker in the block."""
    app = plain_chancy(
        url,
        plugins=[Leadership(), Recovery(), Cron(), SentryPlugin(service="billing")],
        settings=Settings(shutdown_grace=1, heartbeat_timeout=10),
    )
    async with app:
        await declare_queues(app, QUEUES)
        async with Worker(
            app, register_signal_handlers=False, queue_change_poll_interval=1
        ) as worker:
            yield worker
