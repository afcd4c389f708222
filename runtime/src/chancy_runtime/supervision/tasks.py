"""What asyncio's tasks need beyond asyncio."""

import asyncio
import contextlib
import random
from collections.abc import Coroutine, Iterable
from typing import Any

_CANCEL_AGAIN_AFTER = 0.2


def backoff(failures: int, highest: float) -> float:
    """Returns seconds to wait after so many failures in a row, with some jitter."""
    return random.uniform(0.5, 1) * min(2.0**failures, highest)


def is_cancelled() -> bool:
    """Whether somebody wants the current task to end, whatever error it got for it.

    psycopg can turn a cancellation into an error of the connection.
    """
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels tasks until they have ended.

    Once is not enough: wait_for() of Python 3.11, in which psycopg waits, forgets a
    cancellation that comes together with its result.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_AFTER)


async def finish(work: Coroutine[Any, Any, Any]) -> None:
    """Does all of the work, however often the current task is cancelled meanwhile."""
    task = asyncio.create_task(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    task.result()
