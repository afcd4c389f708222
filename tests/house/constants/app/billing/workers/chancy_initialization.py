import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chancy import Chancy, Queue, Worker
from chancy.plugins.cron import Cron
from chancy.plugins.leadership import Leadership
from chancy.plugins.pruner import Pruner
from chancy.plugins.recovery import Recovery
from chancy.plugins.sentry import SentryPlugin

from app.billing.constants import SERVICE, Queues
from app.common.secret_values import get_secret_value

from .chancy_instance import set_chancy
from .send_digest.worker import send_digest

logger = logging.getLogger("billing.jobs")

PREFIX = f"{SERVICE}_"
POOLER = "POSTGRES-SUPABASE-" + "SESSION-POOLER-URL"
MINUTE, HOUR = 60, 3600
HOURS_KEPT = 12
CHANCY_MIN_POOL_SIZE = 2
CHANCY_MAX_POOL_SIZE = int(os.environ.get("BILLING_POOL_SIZE", "6"))
IS_SCHEDULED = True


def hourly(minute: int) -> str:
    """A schedule."""
    return f"{minute} * * * *"


def default_note() -> str:
    return os.environ.get("BILLING_NOTE", SERVICE)


def create() -> Chancy:
    options = {
        "min_connection_pool_size": CHANCY_MIN_POOL_SIZE,
        "max_connection_pool_size": CHANCY_MAX_POOL_SIZE,
    }
    return Chancy(
        get_secret_value(POOLER),
        prefix=PREFIX,
        no_default_plugins=True,
        plugins=[
            Leadership(),
            Pruner(Pruner.Rules.Age() > HOUR * HOURS_KEPT),
            Recovery(),
            Cron(),
            SentryPlugin(),
        ],
        log=logger,
        **options,
    )


@asynccontextmanager
async def initialize_workers() -> AsyncIterator[None]:
    """Configures chancy and starts a worker."""
    chancy: Chancy = create()
    set_chancy(chancy)
    try:
        async with chancy:
            for name, concurrency in [(Queues.DEFAULT, 10), (Queues.REPORTS.value, 5 * 2)]:
                await chancy.declare(
                    Queue(name, concurrency=concurrency, executor=Chancy.Executor.Async)
                )
            if IS_SCHEDULED:
                await Cron.schedule(
                    chancy,
                    hourly(15),
                    send_digest.job.with_unique_key(f"{PREFIX}digest").with_kwargs(
                        note=default_note()
                    ),
                )
            async with Worker(chancy, register_signal_handlers=False):
                yield
    finally:
        logger.info("the workers are down")
