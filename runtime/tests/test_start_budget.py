"""A start takes 15 s at most, however slow the server is and at whatever step it stalls."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack

import pytest
from chancy_runtime import (
    Chancy,
    CronJob,
    Queue,
    Worker,
    WorkersError,
    check_database,
    declare_queues,
    job,
    schedule_cron_jobs,
)
from chancy_runtime.supervision.budget import (
    CLOSE_SECONDS,
    PROMISED_SECONDS,
    START_SECONDS,
    UNDO_SECONDS,
    Budget,
)

from harness.databases import database
from harness.recorder import plain_chancy
from harness.servers import Cluster, Proxy, proxy

pytestmark = pytest.mark.anyio

# For each step, bytes that the service sends in this step and in none before.
STEPS = {
    "check": b"billing_schema_version",
    "check for a transaction pooler": b"billing_probe",
    "pool": b"\rSELECT 1\x00",
    "declare": b'FROM "billing_queues"',
    "schedule": b'"billing_cron"',
    "LISTEN": b'LISTEN "billing_events"',
    "announce": b'INTO "billing_workers"',
}
QUEUES = [Queue("default", executor=Chancy.Executor.Async)]


@job()
async def tick() -> None: ...


async def start(url: str) -> tuple[str, float]:
    """The error of a failed start, or nothing, and the seconds that it took."""
    since = time.monotonic()
    chancy = plain_chancy(url, min_connection_pool_size=2)
    try:
        await check_database(chancy)
        async with chancy:
            await declare_queues(chancy, QUEUES)
            await schedule_cron_jobs(chancy, [CronJob(job=tick, cron="0 0 1 1 *")])
            worker = Worker(chancy, register_signal_handlers=False)
            await worker.start()
            took = time.monotonic() - since
            await worker.stop()
            return "", took
    except WorkersError as error:
        return str(error), time.monotonic() - since


async def start_through(
    server: Cluster, proxies: Sequence[Proxy]
) -> list[tuple[str, float]]:
    """Starts on each proxy at the same time, each in a database of its own."""
    with ExitStack() as stack:
        urls = [
            stack.enter_context(database(server.url())).replace(
                f":{server.port}/", f":{each.port}/"
            )
            for each in proxies
        ]
        return await asyncio.gather(*map(start, urls))


async def test_a_server_that_goes_silent_at_a_step_ends_the_start_in_time(
    server: Cluster,
) -> None:
    with ExitStack() as stack:
        proxies = {
            step: stack.enter_context(proxy(server.port, stall_at=sent))
            for step, sent in STEPS.items()
        }
        results = await start_through(server, [*proxies.values()])

    for (step, between), (line, took) in zip(proxies.items(), results, strict=True):
        assert between.is_stalled, (step, took, line)
        assert f"127.0.0.1:{between.port}/" in line, step
        assert took < PROMISED_SECONDS, (step, took, line)
        assert "\n" not in line


async def test_a_slow_server_ends_the_start_in_time_or_not_at_all(
    server: Cluster,
) -> None:
    delays = (0.02, 0.4, 0.8, 1.5, 3)
    with ExitStack() as stack:
        proxies = [
            stack.enter_context(proxy(server.port, delay=delay)) for delay in delays
        ]
        results = await start_through(server, proxies)

    for delay, (line, took) in zip(delays, results, strict=True):
        assert took < PROMISED_SECONDS, (delay, took, line)
        assert "\n" not in line
    assert results[0][0] == ""
    assert all(line for line, _ in results[-2:])


def test_the_limits_of_a_start_add_up_to_the_promise() -> None:
    """The steps, then the end of a Worker that did not start, then the end of the pool."""
    assert START_SECONDS + UNDO_SECONDS + CLOSE_SECONDS < PROMISED_SECONDS == 15


def test_the_steps_of_a_start_share_its_seconds() -> None:
    budget = Budget()
    with budget.step() as whole:
        time.sleep(0.2)
    time.sleep(0.2)  # The service's own code between two steps does not count.
    with budget.step() as rest:
        time.sleep(0.1)
    with budget.step() as last:
        pass

    assert whole == START_SECONDS
    assert whole - 0.35 < rest <= whole - 0.2
    assert last <= rest - 0.1
    budget.renew()
    with budget.step() as renewed:
        assert renewed == START_SECONDS
