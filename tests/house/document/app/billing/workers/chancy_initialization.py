"""Chancy of the billing service."""

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

CHANCY_MIN_POOL_SIZE = 3
CHANCY_MAX_POOL_SIZE = 7


@asynccontextmanager
async def initialize_workers() -> AsyncIterator[None]:
    """Configures chancy and starts a worker."""
    # Initialize chancy with options/patterns discussed below
    chancy = Chancy(
        get_secret_value("POSTGRES-SUPABASE-SESSION-POOLER-URL"),
        prefix="billing_",
        min_connection_pool_size=CHANCY_MIN_POOL_SIZE,  # 5
        max_connection_pool_size=CHANCY_MAX_POOL_SIZE,  # 10
        no_default_plugins=True,  # disabling chancy metrics & workflow until needed
        plugins=[Leadership(), Pruner(), Recovery(), Cron(), SentryPlugin()],
    )
    # Set chancy as global instance (set_chancy defined in chancy_instance.py)
    set_chancy(chancy)

    async with chancy:
        # Declare queues
        await chancy.declare(
            Queue("default", concurrency=20, executor=Chancy.Executor.Async), upsert=True
        )

        # Schedule cron jobs
        await Cron.schedule(
            chancy, "0 7 * * mon-fri", send_digest.job.with_unique_key("send_digest_cron")
        )

        # Worker instance declaration, could have multiple
        # register_signal_handlers=False prevents Chancy from interfering with Uvicorn's shutdown handlers
        async with Worker(chancy, register_signal_handlers=False) as _worker:
            yield
