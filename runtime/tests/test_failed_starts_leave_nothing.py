"""A start that is cancelled at any point leaves no connection, task or thread behind."""

import asyncio
import logging
import threading
from typing import Any

import pytest
from billing_service import initialize_workers

from harness.cancelling import cancelled
from harness.databases import connections_to

pytestmark = pytest.mark.anyio


async def start_and_stop(number: int) -> bool:
    """Starts the workers, cancelled at a suspension; returns whether it was reached."""
    stack = initialize_workers()
    if await cancelled(stack.__aenter__(), number):
        return True
    await stack.__aexit__(None, None, None)
    return False


def running() -> set[asyncio.Task[Any] | threading.Thread]:
    """The tasks, and the watchdog threads of all services, even those of other tests."""
    threads = threading.enumerate()
    watching = {each for each in threads if each.name == "workers-watchdog"}
    return asyncio.all_tasks() | watching


def left_over(url: str, before: set[asyncio.Task[Any] | threading.Thread]) -> list[str]:
    """The connections, tasks and threads that a start left behind."""
    return [
        *([f"{number} connections"] if (number := connections_to(url)) else []),
        *(repr(each) for each in running() - before),
    ]


async def nothing_is_left(
    url: str, before: set[asyncio.Task[Any] | threading.Thread]
) -> list[str]:
    """The same, after waiting up to ten seconds for their end."""
    for _ in range(500):
        if not (left := left_over(url, before)):
            return []
        await asyncio.sleep(0.02)
    return left


async def test_a_start_that_is_cancelled_at_each_await_leaves_nothing(
    tables: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = running()
    reached = []
    with caplog.at_level(logging.ERROR):
        for number in range(10_000):
            if not await asyncio.create_task(start_and_stop(number)):
                break
            reached.append(number)
            assert await nothing_is_left(tables, before) == [], number
    print(len(reached))

    assert len(reached) > 30
    messages = [record.getMessage() for record in caplog.records]
    assert messages == []
