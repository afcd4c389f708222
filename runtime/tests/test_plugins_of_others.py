"""Plugins and tasks of a team, written as Chancy documents them."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import billing_service
import psycopg
import pytest
from billing_service import create_chancy, fails, succeeds
from chancy.errors import MigrationsNeededError
from chancy.plugin import Plugin
from chancy_runtime import Chancy, QueuedJob, Worker, declare_queues, job
from chancy_runtime.testing import Service
from chancy_runtime.web import find_problems

pytestmark = pytest.mark.anyio


class Base(Plugin):
    """A plugin that does nothing."""

    @staticmethod
    def get_identifier() -> str:
        return "base"


@asynccontextmanager
async def working(
    *plugins: Plugin, before: Callable[[Chancy], None] = lambda _: None, **options: Any
) -> AsyncIterator[Worker]:
    """A Worker of the service with more plugins, listed before the service's own."""
    chancy = create_chancy()
    own = dict(chancy.plugins)
    chancy.plugins.clear()
    chancy.plugins.update({each.get_identifier(): each for each in plugins})
    chancy.plugins.update(own)
    for name, value in options.items():
        setattr(chancy, name, value)
    before(chancy)
    async with chancy:
        await declare_queues(chancy, billing_service.QUEUES)
        async with Worker(chancy, register_signal_handlers=False) as worker:
            yield worker


async def run(worker: Worker, job: Any, **kwargs: Any) -> QueuedJob:
    pushed = await worker.chancy.push(job.job.with_kwargs(**kwargs))
    ended = await worker.chancy.wait_for_job(pushed, timeout=60)
    assert ended is not None
    return ended


@pytest.mark.usefixtures("tables")
async def test_without_notifications_nothing_listens_and_nothing_is_wrong() -> None:
    async with working(notifications=False) as worker:
        await asyncio.sleep(1)
        names = {task.get_name() for task in worker.manager}
        assert not names & {"notifications", "listening"}
        assert await find_problems(lambda: worker.chancy) == []
        assert (await run(worker, succeeds, text="hello")).attempts == 1


class CancelledHook(Base):
    """A plugin whose hook waits for a task that was cancelled."""

    async def on_job_completed(
        self,
        *,
        worker: Any,
        job: QueuedJob,
        exc: Exception | None = None,
        result: Any = None,
    ) -> QueuedJob:
        task = asyncio.create_task(asyncio.Event().wait())
        task.cancel()
        await task
        return job


@job()
async def cancels_itself() -> None:
    task = asyncio.current_task()
    assert task
    task.cancel()
    await asyncio.sleep(60)


@pytest.mark.usefixtures("tables")
async def test_a_job_that_cancels_itself_ends_whatever_a_hook_waits_for() -> None:
    async with working(CancelledHook()) as worker:
        assert (await run(worker, cancels_itself)).state == QueuedJob.State.FAILED


class WithoutSuper(Base):
    """A plugin that forgets Plugin.__init__()."""

    def __init__(self) -> None:
        self.ran = asyncio.Event()

    async def run(self, worker: Any, chancy: Any) -> None:
        await self.sleep(1)
        self.ran.set()


@pytest.mark.usefixtures("tables")
async def test_a_plugin_that_does_not_call_super_runs() -> None:
    plugin = WithoutSuper()
    async with working(plugin) as worker:
        async with asyncio.timeout(60):
            await plugin.ran.wait()
        assert await find_problems(lambda: worker.chancy) == []


class StrictHook(Base):
    """A plugin whose hook has no defaults."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, object]] = []

    async def on_job_completed(  # type: ignore[override]
        self, *, worker: Any, job: QueuedJob, exc: Any, result: Any
    ) -> QueuedJob:
        self.seen.append((job.state.value, type(exc).__name__))
        return job


@pytest.mark.usefixtures("tables")
async def test_a_hook_without_defaults_sees_each_end() -> None:
    plugin = StrictHook()
    async with working(plugin) as worker:
        await run(worker, succeeds, text="hello")
        await run(worker, fails)

    assert plugin.seen == [("succeeded", "NoneType"), ("failed", "RuntimeError")]


@pytest.mark.usefixtures("tables")
async def test_a_hook_that_is_set_on_the_plugin_itself_is_called() -> None:
    plugin, seen = Base(), []

    async def on_job_completed(*, job: QueuedJob, **_: object) -> QueuedJob:
        seen.append(job.state.value)
        return job

    setattr(plugin, "on_job_completed", on_job_completed)  # noqa: B010
    async with working(plugin) as worker:
        await run(worker, succeeds, text="hello")

    assert seen == ["succeeded"]


class BadUpdate(Base):
    """A plugin whose hook for saved results raises."""

    @staticmethod
    def get_identifier() -> str:
        return "bad"

    async def on_job_updated(self, *, worker: Any, job: QueuedJob) -> None:
        raise RuntimeError("after the result was saved")


class Counting(Base):
    """A plugin that counts saved results."""

    saved = 0

    async def on_job_updated(self, *, worker: Any, job: QueuedJob) -> None:
        self.saved += 1


@pytest.mark.usefixtures("tables")
async def test_a_plugin_that_raises_after_a_result_was_saved_is_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plugin = Counting()
    async with working(BadUpdate(), plugin) as worker:
        for _ in range(2):
            await run(worker, succeeds, text="hello")
        await worker.flush()
        assert await find_problems(lambda: worker.chancy) == []

    assert plugin.saved == 2
    assert caplog.text.count("BadUpdate.on_job_updated failed for the job") == 2


@pytest.mark.usefixtures("tables")
async def test_a_team_s_task_that_raises_is_reported_as_dead() -> None:
    async def mine() -> None:
        raise RuntimeError("this task always fails")

    async with working() as worker:
        await worker.manager.add("mine", mine())
        assert "mine is down" in await find_problems(lambda: worker.chancy)
        # The team starts it again itself.
        worker.manager.add("mine", asyncio.sleep(3600))
        assert await find_problems(lambda: worker.chancy) == []


def namesake(identifier: str, fails_first: bool) -> "type[Base]":
    """A plugin class `Namesake` that counts its runs in progress."""

    class Namesake(Base):
        running = 0
        runs = 0

        @staticmethod
        def get_identifier() -> str:
            return identifier

        async def run(self, worker: Any, chancy: Any) -> None:
            kind = type(self)
            kind.runs += 1
            if fails_first and kind.runs == 1:
                raise RuntimeError("at its first run")
            kind.running += 1
            try:
                await asyncio.Event().wait()
            finally:
                kind.running -= 1

    return Namesake


@pytest.mark.usefixtures("tables")
async def test_the_one_of_two_plugins_of_a_name_that_failed_runs_again() -> None:
    kinds: list[Any] = [namesake("one", False), namesake("two", True)]
    async with working(*(kind() for kind in kinds)):
        async with asyncio.timeout(60):
            while not kinds[1].running:
                await asyncio.sleep(0.05)
        assert [kind.running for kind in kinds] == [1, 1]


class BadStop(Base):
    """A plugin whose hook at the stop does not end well."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    async def on_worker_stopped(self, *, worker: Any) -> None:
        if self.how == "raises":
            raise RuntimeError("at the stop")
        task = asyncio.create_task(asyncio.Event().wait())
        if self.how == "waits for a cancelled task":
            task.cancel()
        await task


@pytest.mark.parametrize(
    "how", ["raises", "waits for ever", "waits for a cancelled task"]
)
async def test_plugins_that_fail_at_the_stop_do_not_affect_the_others(
    how: str, tables: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Twelve of them take no longer than one."""
    bad = [
        type("BadStop", (BadStop,), {"get_identifier": lambda number=number: number})
        for number in map(str, range(12))
    ]
    with caplog.at_level(logging.ERROR):
        async with working(*[each(how) for each in bad]) as worker:
            async with asyncio.timeout(60):
                await worker.is_leader.wait()
            await worker.chancy.push(billing_service.sleeps)
            async with asyncio.timeout(60):
                while not any(map(len, worker.executors.values())):
                    await asyncio.sleep(0.02)
            async with asyncio.timeout(30):
                await worker.stop(timeout=0)

    assert caplog.text.count("BadStop.on_worker_stopped failed") == 12
    with psycopg.connect(tables) as connection:
        for table in ("billing_leader", "billing_workers"):
            assert connection.execute(f"SELECT 1 FROM {table}").fetchall() == []
        rows = connection.execute("SELECT state, attempts FROM billing_jobs").fetchall()
    assert rows == [("pending", 0)]


class Daily(Base):
    """A plugin that reports once a day."""

    reports = 0

    async def run(self, worker: Any, chancy: Any) -> None:
        while await self.sleep(86400):
            self.reports += 1


@pytest.mark.usefixtures("tables")
async def test_a_plugin_that_sleeps_first_is_not_woken_by_a_start() -> None:
    plugin = Daily()
    async with working(plugin) as worker:
        await run(worker, succeeds, text="hello")

    assert plugin.reports == 0


@pytest.mark.usefixtures("tables")
async def test_a_stop_may_come_twice_or_without_a_start(service: Service) -> None:
    chancy = create_chancy()
    for _ in range(2):  # Also on a Chancy that nobody has entered.
        worker = Worker(chancy, register_signal_handlers=False)
        events: list[object] = []
        worker.hub.on("worker.stopped", events.append)
        assert all(await asyncio.gather(worker.stop(), worker.stop()))
        assert len(events) == 1
        await chancy.pool.open()
    await chancy.pool.close()
    async with working() as worker:
        assert await worker.stop() is True
        assert await worker.stop() is True


@pytest.mark.usefixtures("database_url")
async def test_a_worker_on_a_database_without_tables_says_so_as_chancy_does() -> None:
    async with create_chancy() as chancy:
        with pytest.raises(MigrationsNeededError):
            await Worker(chancy, register_signal_handlers=False).start()
