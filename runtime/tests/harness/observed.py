"""A service in the test's process, whose plugins a test chooses, and its jobs."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import sentry_sdk
import uvicorn
from chancy.plugin import Plugin
from chancy_runtime import (
    Chancy,
    Cron,
    Leadership,
    Pruner,
    Queue,
    QueuedJob,
    Recovery,
    Settings,
    Worker,
    declare_queues,
    job,
)
from chancy_runtime.web import find_problems
from fastapi import FastAPI
from opentelemetry import propagate, trace

from harness.recorder import plain_chancy

# One for each executor; `thread` and `process` run plain functions too.
EXECUTORS = {
    "async": Chancy.Executor.Async,
    "thread": Chancy.Executor.Threaded,
    "process": Chancy.Executor.Process,
}


@job(queue="async")
async def succeeds(*, note: str = "") -> None:
    """Does nothing."""


@job(
    queue="async",
    max_attempts=2,
)
async def fails_once(*, context: QueuedJob) -> None:
    """Its second attempt succeeds."""
    if context.attempts == 0:
        raise RuntimeError("not yet")


@job(queue="async")
async def fails(*, note: str = "") -> None:
    raise RuntimeError("this job always fails")


@job(queue="async")
async def waits(*, file: str) -> None:
    """Ends when the file is there."""
    while not Path(file).exists():
        await asyncio.sleep(0.02)


async def traced(*, file: str) -> None:
    """Records the traces in which it runs, and creates a span of its own."""
    headers: dict[str, str] = {}
    propagate.inject(headers)
    if parent := sentry_sdk.get_traceparent():
        headers["sentry-trace"] = parent
    with trace.get_tracer(__name__).start_as_current_span("of the job"):
        Path(file).write_text(json.dumps(headers))


def create_chancy(
    url: str, *plugins: Plugin, prefix: str = "billing_", grace: int = 20
) -> Chancy:
    return plain_chancy(
        url,
        prefix=prefix,
        package=f"app.{prefix.rstrip('_')}.workers",
        settings=Settings(poll_interval=1, shutdown_grace=grace, retry_wait=0),
        plugins=[Leadership(), Pruner(), Recovery(), Cron(), *plugins],
    )


@asynccontextmanager
async def working(chancy: Chancy, *executors: str) -> AsyncIterator[Chancy]:
    """The workers of a service, ready, with a queue for each of the executors."""
    queues = [
        Queue(each, executor=EXECUTORS[each], concurrency=5, eager_polling=True)
        for each in executors or ["async"]
    ]
    async with chancy:
        await declare_queues(chancy, queues)
        async with Worker(chancy, register_signal_handlers=False):
            await until_none(lambda: find_problems(lambda: chancy))
            yield chancy


async def until_none(found: Callable[[], Awaitable[object]]) -> None:
    """Waits until nothing is found.

    Raises:
        TimeoutError: Something is still found after 120 s.
    """
    async with asyncio.timeout(120):
        while await found():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    """An app under uvicorn, in the loop of the test; yields its address."""
    config = uvicorn.Config(app, port=0, log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:
        assert not task.done(), "uvicorn did not start"
        await asyncio.sleep(0.01)
    (port,) = {socket.getsockname()[1] for socket in server.servers[0].sockets}
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task
