"""Everything about invoices."""

import chancy


@chancy.job(queue="invoices")
async def close_month() -> None: ...


@chancy.job(queue="invoices", priority=3)
async def send_reminders() -> None: ...
