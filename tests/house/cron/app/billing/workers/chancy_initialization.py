from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from zoneinfo import ZoneInfo

from chancy import Chancy, Job, Queue, Worker
from chancy.plugins.cron import Cron
from chancy.plugins.leadership import Leadership
from chancy.plugins.pruner import Pruner
from chancy.plugins.recovery import Recovery
from chancy.plugins.sentry import SentryPlugin

from app.common.secret_values import get_secret_value

from .chancy_instance import set_chancy
from .clean_up.worker import clean_up
from .send_digest.worker import send_digest

LONDON = ZoneInfo("Europe/London")
CUSTOMERS = {"acme": "0 6 * * *", "globex": "30 6 * * *"}
NOTE = "by the clock"


async def schedule_cron_jobs(chancy: Chancy) -> None:
    for customer, cron in CUSTOMERS.items():
        await Cron.schedule(
            chancy,
            cron,
            send_digest.job.with_kwargs(note=f"for {customer}").with_unique_key(
                f"digest:{customer}"
            ),
            timezone=LONDON,
        )
    weekly = send_digest.job.with_unique_key("digest:weekly").with_priority(5)
    await Cron.schedule(chancy, "0 8 * * 1", weekly.with_kwargs(note=NOTE))
    await Cron.schedule(
        chancy,
        "0 2 * * *",
        Job.from_func(
            clean_up,
            queue="slow",
            kwargs={"days": 30},
            unique_key="clean_up_cron",
            max_attempts=2,
        ),
        timezone=ZoneInfo("America/New_York"),
    )
    await Cron.unschedule(chancy, "an_old_one")


@asynccontextmanager
async def initialize_workers() -> AsyncIterator[None]:
    chancy = Chancy(
        dsn=get_secret_value("POSTGRES-SUPABASE-SESSION-POOLER-URL"),
        prefix="billing_",
        plugins=[Leadership(), Pruner(), Recovery(), Cron(), SentryPlugin()],
        no_default_plugins=True,
        notifications=False,
    )
    set_chancy(chancy)
    async with chancy:
        await chancy.declare(Queue(name="default", executor=Chancy.Executor.Async))
        await chancy.declare(
            Queue(name="slow", executor=Chancy.Executor.Threaded, concurrency=2)
        )
        await schedule_cron_jobs(chancy)
        async with Worker(chancy, register_signal_handlers=False):
            yield
