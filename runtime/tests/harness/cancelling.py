"""Cancels an awaitable of a test at a given suspension."""

import asyncio
from collections.abc import Awaitable, Generator
from typing import Any


async def cancelled(work: Awaitable[None], number: int) -> bool:
    """Awaits `work`, cancelled at its nth suspension; whether it had not ended before."""
    try:
        await _CancelledAt(work, number)
    except asyncio.CancelledError:
        return True
    return False


class _CancelledAt:
    """Awaits `work` and cancels the current task at its nth suspension.

    Args:
        number: The number of the suspension, from 0.
    """

    def __init__(self, work: Awaitable[None], number: int) -> None:
        self._work = work
        self._number = number

    def __await__(self) -> Generator[Any, Any, None]:
        task = asyncio.current_task()
        assert task
        steps = self._work.__await__()
        value: Any = None
        error: BaseException | None = None
        for number in range(1_000_000):
            try:
                waits_for = steps.throw(error) if error else steps.send(value)
            except StopIteration:
                return
            finally:
                error = None  # Its traceback would keep objects alive.
            if number == self._number:
                asyncio.get_running_loop().call_soon(task.cancel)
            try:
                value = yield waits_for
            except BaseException as raised:  # noqa: BLE001  # passed on
                error = raised
