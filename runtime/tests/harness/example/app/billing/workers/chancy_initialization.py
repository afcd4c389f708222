"""Initializes the Chancy of the billing service: queues, cron jobs and workers."""

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
    schedule_cron_jobs,
)

from app.secret_values import get_secret_value

from .chancy_instance import set_chancy

DATABASE_SECRET = "POSTGRES-SUPABASE-SESSION-POOLER-URL"
CHANCY_MIN_POOL_SIZE = 5
CHANCY_MAX_POOL_SIZE = 10

SETTINGS = Settings(only_registered=True)

QUEUES = [
    Queue(
        "default",
        executor=Chancy.Executor.Async,
        concurrency=100,
        eager_polling=True,
    ),
]

CRON_JOBS: list[CronJob] = []


def create_chancy() -> Chancy:
    """Builds the service's one Chancy; nothing connects before it is entered."""
    return Chancy(
        database_url(DATABASE_SECRET, get_secret_value),
        prefix="billing_",
        min_connection_pool_size=CHANCY_MIN_POOL_SIZE,
        max_connection_pool_size=CHANCY_MAX_POOL_SIZE,
        no_default_plugins=True,
        plugins=[
            Leadership(),
            Pruner(),
            Recovery(),
            Cron(),
            SentryPlugin(service="billing"),
        ],
        settings=SETTINGS,
        package=__package__,
    )


@asynccontextmanager
async def initialize_workers() -> AsyncIterator[None]:
    """Configures chancy and starts a worker."""
    chancy = create_chancy()
    await check_database(chancy)
    set_chancy(chancy)
    async with chancy:
        await declare_queues(chancy, QUEUES)
        await schedule_cron_jobs(chancy, CRON_JOBS)
        async with Worker(chancy, register_signal_handlers=False):
            yield
