import logging
from contextlib import AsyncExitStack, asynccontextmanager
from typing import AsyncIterator

from chancy import Chancy, Queue, Worker
from chancy.plugins.cron import Cron
from chancy.plugins.leadership import Leadership
from chancy.plugins.pruner import Pruner
from chancy.plugins.recovery import Recovery
from chancy.plugins.sentry import SentryPlugin

from ...common.secret_values import get_secret_value
from .build_report.worker import build_report
from .chancy_instance import set_chancy
from .send_digest.worker import send_digest

logger = logging.getLogger(__name__)

REPORT_TAGS = {"reports"}


@asynccontextmanager
async def initialize_workers() -> AsyncIterator[None]:
    chancy = Chancy(
        get_secret_value("POSTGRES-SUPABASE-SESSION-POOLER-URL"),
        prefix="billing_",
        min_connection_pool_size=2,
        max_connection_pool_size=6,
        no_default_plugins=True,
        plugins=[Leadership(), Pruner(), Recovery(), Cron(), SentryPlugin()],
        log=logger,
    )
    set_chancy(chancy)
    async with chancy, AsyncExitStack() as stack:
        await chancy.declare(Queue("default", executor=Chancy.Executor.Async))
        await chancy.declare(
            Queue("reports", executor=Chancy.Executor.Async, tags=REPORT_TAGS, concurrency=2)
        )
        # Also taken by reports-big, because tags are patterns.
        await chancy.declare(Queue("mail", executor=Chancy.Executor.Async, tags={"mail"}))
        await Cron.schedule(chancy, "*/5 * * * *", send_digest.job.with_unique_key("digest"))
        await Cron.schedule(
            chancy,
            "30 3 * * *",
            build_report.job.with_unique_key("report").with_kwargs(size=7),
        )
        for tags in ({"reports"}, {"mail", "mail-big"}):
            await stack.enter_async_context(
                Worker(chancy, register_signal_handlers=False, tags=tags, shutdown_timeout=25)
            )
        await stack.enter_async_context(Worker(chancy, register_signal_handlers=False))
        logger.info("the workers are up")
        yield
