from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chancy import Chancy, Queue, Worker
from chancy.plugins.cron import Cron

from app.common.vault import read_secret

from .chancy_instance import set_chancy_instance
from .send_digest.worker import send_digest


@asynccontextmanager
async def initialize_workers() -> AsyncIterator[None]:
    url = read_secret("pooler_url")
    chancy = Chancy(url, prefix="billing_", plugins=[Cron(poll_interval=30)])
    set_chancy_instance(chancy)
    async with chancy:
        await chancy.declare(Queue("default", executor=Chancy.Executor.Async))
        await Cron.schedule(chancy, "@daily", send_digest.job.with_unique_key("digest"))
        async with Worker(chancy, register_signal_handlers=False):
            yield
