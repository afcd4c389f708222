"""A service on the library, as small as one can be."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chancy_runtime import (
    Chancy,
    Cron,
    CronJob,
    Leadership,
    Pruner,
    Queue,
    Recovery,
    SentryPlugin,
    Settings,
    Worker,
    check_database,
    database_url,
    declare_queues,
    get_secret_value,
    job,
    schedule_cron_jobs,
)

SETTINGS = Settings()
QUEUES = [Queue("default", executor=Chancy.Executor.Async, eager_polling=True)]
CRON_JOBS: list[CronJob] = []
_instances: list[Chancy] = []


@job()
async def succeeds(*, text: str) -> None:
    assert text == "hello"


@job()
async def fails() -> None:
    raise RuntimeError("this job always fails")


@job()
async def sleeps() -> None:
    await asyncio.sleep(60)


def create_chancy() -> Chancy:
    return Chancy(
        database_url("NO-SECRET", get_secret_value),
        prefix="billing_",
        min_connection_pool_size=2,
        max_connection_pool_size=10,
        no_default_plugins=True,
        plugins=[
            Leadership(),
            Pruner(),
            Recovery(),
            Cron(),
            SentryPlugin(service="billing"),
        ],
        settings=SETTINGS,
        package="app.billing.workers",
    )


def get_chancy() -> Chancy:
    for chancy in reversed(_instances):
        if chancy.is_open:
            return chancy
    raise RuntimeError("Chancy is not running")


@asynccontextmanager
async def initialize_workers() -> AsyncIterator[None]:
    chancy = create_chancy()
    await check_database(chancy)
    _instances[:] = [chancy]
    async with chancy:
        await declare_queues(chancy, QUEUES)
        await schedule_cron_jobs(chancy, CRON_JOBS)
        async with Worker(chancy, register_signal_handlers=False):
            yield
