from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chancy import Chancy, Queue, Worker
from chancy.plugins.cron import Cron
from chancy.plugins.leadership import Leadership
from chancy.plugins.pruner import Pruner
from chancy.plugins.recovery import Recovery
from chancy.plugins.sentry import SentryPlugin

from app.common.secret_values import get_secret_value

from .chancy_instance import set_chancy

PER_MINUTE = 60
QUEUES = [
    Queue("default", executor=Chancy.Executor.Threaded, concurrency=4),
    Queue(
        "partner-api",
        executor="chancy.executors.asyncex.AsyncExecutor",
        concurrency=5,
        rate_limit=100,
        rate_limit_window=PER_MINUTE,
        polling_interval=2,
    ),
    Queue(
        "crunch",
        concurrency=1,
        executor=Chancy.Executor.Process,
        executor_options={"maximum_jobs_per_worker": 50},
        eager_polling=False,
    ),
]


@asynccontextmanager
async def initialize_workers() -> AsyncIterator[None]:
    async with Chancy(
        get_secret_value("POSTGRES-SUPABASE-SESSION-POOLER-URL"),
        prefix="billing_",
        min_connection_pool_size=1,
        no_default_plugins=True,
        plugins=[
            Leadership(poll_interval=15, timeout=30),
            Pruner(
                (Pruner.Rules.Queue() == "default") & (Pruner.Rules.Age() > 60 * 60),
                maximum_to_prune=500,
                poll_interval=30,
            ),
            Recovery(poll_interval=30),
            Cron(),
            SentryPlugin(),
        ],
    ) as chancy:
        set_chancy(chancy)
        for queue in QUEUES:
            await chancy.declare(queue, upsert=True)
        async with Worker(chancy, register_signal_handlers=False, heartbeat_timeout=60):
            yield
