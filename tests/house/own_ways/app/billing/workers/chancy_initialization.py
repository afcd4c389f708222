from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chancy import Chancy, Queue, Worker
from chancy.plugins.cron import Cron
from chancy.plugins.leadership import Leadership
from chancy.plugins.recovery import Recovery
from chancy.plugins.retry import RetryPlugin

from app.common.secret_values import get_secret_value

from .chancy_instance import set_chancy
from .plugins import Audit
from .send_digest.worker import send_digest

AUDITED = "the team"


@asynccontextmanager
async def initialize_workers() -> AsyncIterator[None]:
    chancy = Chancy(
        get_secret_value("POSTGRES-SUPABASE-SESSION-POOLER-URL"),
        prefix="billing",
        no_default_plugins=True,
        # No Pruner: the jobs are kept for the auditors.
        plugins=[Leadership(), Recovery(), Cron(), RetryPlugin(), Audit(label=AUDITED)],
    )
    set_chancy(chancy)
    async with chancy:
        await chancy.declare(Queue("default", executor=Chancy.Executor.Async))
        await chancy.declare(
            Queue("Gpu.Jobs", executor=Chancy.Executor.Async, tags={r"has=gpu\d"})
        )
        await Cron.schedule(chancy, "*/7 * * * 0,6", send_digest.job.with_unique_key("d"))
        async with Worker(chancy, register_signal_handlers=False, tags={"has=gpu1"}):
            yield
