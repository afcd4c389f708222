"""Two services in one process share nothing except the process."""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from chancy_runtime import (
    Chancy,
    Queue,
    QueuedJob,
    Settings,
    Worker,
    WorkersError,
    check_database,
    declare_queues,
    job,
    migrate,
)
from chancy_runtime.cli import main
from chancy_runtime.testing import Service
from chancy_runtime.web import find_problems

from harness.databases import query, tables
from harness.recorder import plain_chancy

pytestmark = pytest.mark.anyio

SETTINGS = {
    "billing": Settings(shutdown_grace=1, heartbeat_timeout=10, poll_interval=1),
    "shipping": Settings(shutdown_grace=5, heartbeat_timeout=30, poll_interval=1),
}
QUEUES = [Queue("default", executor=Chancy.Executor.Async, eager_polling=True)]


@job()
async def nap(*, seconds: float = 0) -> None:
    await asyncio.sleep(seconds)


def create_chancy(name: str, url: str) -> Chancy:
    return plain_chancy(
        url,
        prefix=f"{name}_",
        package=f"app.{name}.workers",
        settings=SETTINGS[name],
    )


@asynccontextmanager
async def running(name: str, url: str) -> AsyncIterator[Chancy]:
    """One of the services, ready."""
    chancy = create_chancy(name, url)

    @asynccontextmanager
    async def initialize_workers() -> AsyncIterator[None]:
        await check_database(chancy)
        async with chancy:
            await declare_queues(chancy, QUEUES)
            async with Worker(chancy, register_signal_handlers=False):
                yield

    service = Service(lambda: chancy, initialize_workers, lambda: chancy)
    async with service.running():
        yield chancy


@pytest.fixture
async def url(database_url: str) -> str:
    for name in SETTINGS:
        await migrate(create_chancy(name, database_url))
    return database_url


async def ran(chancy: Chancy, seconds: float = 0) -> QueuedJob:
    """Runs a job of a service; returns it when it has ended."""
    reference = await chancy.push(nap.job.with_kwargs(seconds=seconds))
    ended = await chancy.wait_for_job(reference, timeout=60)
    assert ended is not None
    return ended


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


async def test_each_runs_its_own_jobs_with_its_own_settings_and_log(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        async with (
            running("billing", url) as billing,
            running("shipping", url) as other,
        ):
            for chancy in (billing, other):
                done = await ran(chancy)
                assert done.state == QueuedJob.State.SUCCEEDED
                (worker,) = chancy.workers
                taken_by = query(url, f"SELECT taken_by FROM {chancy.prefix}jobs")
                assert taken_by == [(worker.worker_id,)]
                settings = SETTINGS[chancy.prefix.rstrip("_")]
                assert worker.heartbeat_timeout == settings.heartbeat_timeout

    for name in SETTINGS:
        assert query(url, f"SELECT count(*) FROM {name}_jobs") == [(1,)]
        log = f"app.{name}.workers"
        lines = [each.getMessage() for each in caplog.records if each.name == log]
        assert lines.count("Started plugin 'Leadership'") == 1
    others = {"app.billing.workers", "app.shipping.workers"}
    assert {
        each.name for each in caplog.records if each.levelno >= logging.INFO
    } <= others


async def test_one_that_stops_or_fails_leaves_the_other_alone(url: str) -> None:
    async with AsyncExitStack() as stack:
        billing = await stack.enter_async_context(running("billing", url))
        async with running("shipping", url) as shipping:
            query(url, "ALTER TABLE shipping_cron RENAME TO away")
            await eventually(lambda: "Cron" in shipping.monitor.failing)
            assert "Cron is down" in await find_problems(lambda: shipping)
            assert await find_problems(lambda: billing) == []
            query(url, "ALTER TABLE away RENAME TO shipping_cron")

        assert not shipping.is_open and shipping.workers == []
        assert await find_problems(lambda: billing) == []
        assert (await ran(billing)).state == QueuedJob.State.SUCCEEDED


async def test_sigterm_stops_both_each_within_its_own_grace(url: str) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    try:
        async with (
            running("billing", url) as billing,
            running("shipping", url) as other,
        ):
            references = [
                await chancy.push(nap.job.with_kwargs(seconds=2.5))
                for chancy in (billing, other)
            ]
            query_states = "SELECT array_agg(state) FROM (TABLE {0}) _"
            await eventually(
                lambda: all(
                    query(url, query_states.format(f"{name}_jobs")) == [(["running"],)]
                    for name in SETTINGS
                )
            )
            os.kill(os.getpid(), signal.SIGTERM)
            await eventually(lambda: not billing.workers and not other.workers)
            short = await billing.get_job(references[0])
            long = await other.get_job(references[1])
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)

    assert short and short.state == QueuedJob.State.PENDING
    assert long and long.state == QueuedJob.State.SUCCEEDED


async def test_the_error_of_a_start_names_the_commands_of_its_own_service(
    database_url: str,
) -> None:
    await migrate(create_chancy("billing", database_url))
    await check_database(create_chancy("billing", database_url))

    with pytest.raises(
        WorkersError,
        match=r"shipping_\* .*: run python -m app.shipping.workers migrate",
    ):
        await check_database(create_chancy("shipping", database_url))


def test_the_commands_keep_to_their_own_tables(
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def command(name: str, verb: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["workers", verb])
        with pytest.raises(SystemExit) as end:
            main(lambda: create_chancy(name, database_url), f"app.{name}.workers")
        return end.value.code, capsys.readouterr().out

    assert command("billing", "migrate")[0] == 0
    assert {table.partition("_")[0] for table in tables(database_url)} == {"billing"}
    status, printed = command("shipping", "status")
    assert status == 1
    assert printed.startswith("shipping_* at ")
    assert printed.endswith("run python -m app.shipping.workers migrate\n")
    assert command("billing", "status")[0] == 0
