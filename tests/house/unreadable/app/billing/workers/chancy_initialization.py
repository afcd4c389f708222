import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chancy import Chancy, Queue, Worker
from chancy.plugins.cron import Cron
from chancy.plugins.leadership import Leadership

from app.common.secret_values import get_secret_value

from .chancy_instance import set_chancy
from .send_digest.worker import send_digest


@asynccontextmanager
async def initialize_workers() -> AsyncIterator[None]:
    chancy = Chancy(
        get_secret_value("POSTGRES-SUPABASE-SESSION-POOLER-URL"),
        prefix=os.environ["PREFIX"],
        no_default_plugins=True,
        plugins=[Leadership(), Cron()],
    )
    set_chancy(chancy)
    async with chancy:
        await chancy.migrate()
        for name in os.environ["QUEUES"].split(","):
            await chancy.declare(Queue(name))
        if os.environ.get("CRON"):
            await Cron.schedule(chancy, "0 7 * * *", send_digest.job.with_unique_key("d"))
        await chancy.push(send_digest)
        async with Worker(chancy, backoff_max=2, register_signal_handlers=False):
            yield
