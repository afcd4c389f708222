"""A service whose jobs last until they are told to end, one queue for each executor."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from chancy_runtime import Chancy, Queue, Settings, Worker, declare_queues, job

from harness.recorder import plain_chancy

QUEUES = [
    Queue("async", executor=Chancy.Executor.Async, eager_polling=True),
    Queue(
        "thread", executor=Chancy.Executor.Threaded, concurrency=2, eager_polling=True
    ),
    Queue(
        "process", executor=Chancy.Executor.Process, concurrency=1, eager_polling=True
    ),
]
end_of_threads = threading.Event()


@job(queue="async")
async def succeeds() -> None: ...


@job(queue="async", max_attempts=3)
async def waits(*, started: str) -> None:
    Path(started).touch()
    await asyncio.sleep(600)


@job(queue="thread", max_attempts=3)
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
    app = plain_chancy(url, settings=Settings(shutdown_grace=1, heartbeat_timeout=10))
    async with app:
        await declare_queues(app, QUEUES)
        async with Worker(app, register_signal_handlers=False) as worker:
            yield worker
