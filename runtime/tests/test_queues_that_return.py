"""A queue that a worker leaves and serves again has one feeder, and a stop ends it at once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import billing_service
import psycopg
import pytest
from billing_service import get_chancy
from chancy_runtime import Chancy, Queue, QueuedJob, Worker, declare_queues, job
from chancy_runtime.testing import Service
from chancy_runtime.web import find_problems

pytestmark = pytest.mark.anyio

QUEUE = Queue(
    "default",
    executor=Chancy.Executor.Async,
    concurrency=1,
    polling_interval=1,
    eager_polling=True,
)
running = 0
most = 0


@job()
async def overlaps(*, seconds: float) -> None:
    """Records how many run at the same time."""
    global running, most
    running += 1
    most = max(most, running)
    await asyncio.sleep(seconds)
    running -= 1


@pytest.fixture
async def chancy(
    tables: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Chancy]:
    monkeypatch.setattr(billing_service, "QUEUES", [QUEUE])
    async with service.running() as chancy:
        yield chancy


def set_tags(url: str, tags: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE billing_queues SET tags = %s", [tags])
        connection.execute(
            """NOTIFY billing_events, '{"t": "queue.declared", "q": "default"}'"""
        )


async def test_jobs_of_a_queue_that_was_removed_and_added_do_not_overlap(
    chancy: Chancy, tables: str
) -> None:
    (worker,) = chancy.workers
    references = [
        await chancy.push(overlaps.job.with_kwargs(seconds=3)),
        *[await chancy.push(overlaps.job.with_kwargs(seconds=0.2)) for _ in range(5)],
    ]
    async with asyncio.timeout(60):
        while not running:
            await asyncio.sleep(0.02)

    set_tags(tables, "{nobody}")
    async with asyncio.timeout(60):
        while len(worker):  # type: ignore[arg-type]
            await asyncio.sleep(0.01)
    set_tags(tables, "{.*}")

    for reference in references:
        done = await chancy.wait_for_job(reference, timeout=60)
        assert done is not None
        assert (done.state, done.attempts) == (QueuedJob.State.SUCCEEDED, 1)
    assert most == 1
    assert await find_problems(get_chancy) == []


class Slow(Worker):
    """A Worker whose first claim is answered when the test says so."""

    def __init__(self, chancy: Chancy) -> None:
        super().__init__(chancy, register_signal_handlers=False)
        self.has_claimed, self.is_answered = asyncio.Event(), asyncio.Event()

    async def fetch_jobs(self, *args: Any, **options: Any) -> list[QueuedJob]:
        self.has_claimed.set()
        await self.is_answered.wait()
        return await super().fetch_jobs(*args, **options)


async def test_a_stop_during_the_first_claim_does_not_wait_for_the_next_poll(
    tables: str,
) -> None:
    queue = Queue("default", executor=Chancy.Executor.Async, polling_interval=60)
    async with asyncio.timeout(60), billing_service.create_chancy() as chancy:
        await declare_queues(chancy, [queue])
        async with Slow(chancy) as worker:
            await worker.has_claimed.wait()
            stop = asyncio.create_task(worker.stop())
            await worker.shutdown_event.wait()
            asyncio.get_running_loop().call_later(0.1, worker.is_answered.set)
            assert await stop
