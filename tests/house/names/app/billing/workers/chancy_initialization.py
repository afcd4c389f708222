from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import chancy as chancy_lib
from chancy.plugins import leadership, pruner, recovery
from chancy.plugins.cron import Cron
from chancy.plugins.sentry import SentryPlugin

from app.billing.workers.chancy_instance import set_chancy
from app.common import secret_values


@asynccontextmanager
async def initialize_workers() -> AsyncIterator[None]:
    # Here, because of a circle.
    from .invoices.worker import close_month as closing
    from .invoices.worker import send_reminders

    client = chancy_lib.Chancy(
        secret_values.get_secret_value("POSTGRES-SUPABASE-SESSION-POOLER-URL"),
        prefix="billing_",
        min_connection_pool_size=1,
        max_connection_pool_size=4,
        no_default_plugins=True,
        plugins=[
            leadership.Leadership(),
            pruner.Pruner(),
            recovery.Recovery(),
            Cron(),
            SentryPlugin(),
        ],
    )
    set_chancy(client)
    async with client:
        await client.declare(
            chancy_lib.Queue("invoices", executor=client.Executor.Async)
        )
        await Cron.schedule(
            client,
            "0 0 1 * *",
            closing.job.with_unique_key("close_month"),
            send_reminders.job.with_unique_key("send_reminders"),
        )
        async with chancy_lib.Worker(client, register_signal_handlers=False):
            yield
