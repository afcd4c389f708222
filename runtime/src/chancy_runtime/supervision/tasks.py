"""Helpers for asyncio's tasks: backoff, reliable cancellation, work that must finish."""

import asyncio
import random
from collections.abc import Coroutine, Iterable
from typing import Any

_CANCEL_AGAIN_AFTER = 0.2


def backoff(failures: int, highest: float) -> float:
    """Returns the seconds to wait after a number of failures in a row, with jitter."""
    return random.uniform(0.5, 1) * min(2.0**failures, highest)


def is_cancelled() -> bool:
    """Whether the current task was cancelled, whatever error it caught.

    psycopg can turn a cancellation into an error of the connection.
    """
    return cancellations() > 0


def cancellations() -> int:
    """Returns how often the current task was cancelled."""
    task = asyncio.current_task()
    return task.cancelling() if task else 0


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels tasks until they have ended.

    One cancellation is not enough: wait_for() of Python 3.11, which psycopg uses, loses
    a cancellation that arrives together with its result.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_AFTER)


async def finish(work: Coroutine[Any, Any, Any]) -> None:
    """Runs a coroutine to its end, even if the current task is cancelled before that.

    Raises:
        asyncio.CancelledError: The current task was cancelled; the work is done.
    """
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
