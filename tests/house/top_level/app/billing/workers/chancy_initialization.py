"""Chancy, pulled to the top level for `chancy --app … misc migrate`."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chancy import Chancy, Queue, Worker
from chancy.plugins.cron import Cron
from chancy.plugins.leadership import Leadership
from chancy.plugins.pruner import Pruner
from chancy.plugins.recovery import Recovery
from chancy.plugins.sentry import SentryPlugin

from app.billing.workers.chancy_instance import set_chancy
from app.billing.workers.send_digest.worker import send_digest
from app.common.secret_values import get_secret_value

chancy = Chancy(
    get_secret_value("POSTGRES-SUPABASE-SESSION-POOLER-URL"),
    prefix="billing_",
    min_connection_pool_size=5,
    max_connection_pool_size=10,
    no_default_plugins=True,
    plugins=[Leadership(), Pruner(), Recovery(), Cron(), SentryPlugin()],
)


async def declare_queues() -> None:
    await chancy.declare(Queue("default", concurrency=100, executor=Chancy.Executor.Async))


@asynccontextmanager
async def initialize_workers() -> AsyncIterator[None]:
    """Configures chancy and starts a worker."""
    set_chancy(chancy)
    async with chancy:
        await declare_queues()
        await Cron.schedule(
            chancy, "0 7 * * mon-fri", send_digest.job.with_unique_key("digest")
        )
        async with Worker(chancy, register_signal_handlers=False) as _worker:
            yield
