"""Cancels what a test awaits, at the place that it names."""

import asyncio
from collections.abc import Awaitable, Generator
from typing import Any


async def cancelled(work: Awaitable[None], number: int) -> bool:
    """Awaits something; whether it was cancelled, at its nth suspension, before it ended."""
    try:
        await _CancelledAt(work, number)
    except asyncio.CancelledError:
        return True
    return False


class _CancelledAt:
    """Awaits something and cancels the current task at its nth suspension.

    Args:
        work: What is awaited.
        number: At which suspension, from 0.
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
                error = None  # Its traceback would keep what it left alive.
            if number == self._number:
                asyncio.get_running_loop().call_soon(task.cancel)
            try:
                value = yield waits_for
            except BaseException as raised:  # noqa: BLE001  # passed on
                error = raised
