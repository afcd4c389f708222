"""The record job."""

import asyncio
import os

from chancy_runtime import job


@job(queue="default")
async def record(*, note: str = "cron", seconds: float = 0) -> None:
    """Records that it runs, and sleeps."""
    with open(os.environ["EXECUTIONS"], "a") as file:
        file.write(f"{note}\n")
    await asyncio.sleep(seconds)
