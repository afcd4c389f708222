"""Uses each part of Chancy's public API once, with the classes of this library.

docs/differences.md lists the differences and their reasons.
"""

import asyncio
import inspect
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import chancy.hub
import pytest
from billing_service import create_chancy
from chancy.errors import MigrationsNeededError
from chancy.plugin import Plugin, PluginScope
from chancy.plugins.debug import DebugPlugin
from chancy.plugins.leadership import ImmediateLeadership
from chancy.plugins.metrics import Metrics
from chancy.plugins.reprioritize import Reprioritize
from chancy.plugins.retry import RetryPlugin
from chancy.plugins.workflow import Sequence, Workflow, WorkflowPlugin
from chancy_runtime import (
    AsyncExecutor,
    Chancy,
    Cron,
    Job,
    Leadership,
    Limit,
    ProcessExecutor,
    Pruner,
    Queue,
    QueuedJob,
    Recovery,
    Reference,
    ThreadedExecutor,
    Trigger,
    Worker,
    job,
    migrate,
)
from psycopg.rows import dict_row

from harness.databases import query

pytestmark = pytest.mark.anyio

State = QueuedJob.State
QUEUES = [
    Queue("default", executor=Chancy.Executor.Async, polling_interval=1),
    Queue("thread", executor=Chancy.Executor.Threaded, polling_interval=1),
    Queue("process", executor=Chancy.Executor.Process, concurrency=1),
]


@job()
async def greet(*, name: str = "World") -> str:
    return f"Hello, {name}!"


@job(queue="default", priority=1, max_attempts=3, kwargs={"seconds": 60})
async def wait(*, seconds: float) -> None:
    await asyncio.sleep(seconds)


@job(queue="thread")
def wait_in_steps(*, context: QueuedJob) -> None:
    while context.time_remaining != 0:
        time.sleep(0.01)
    context.checkpoint()


@job(queue="process")
def compute() -> None:
    while True:
        pass


@job(queue="process", limits=[Limit(Limit.Type.MEMORY, 2**30)])
def allocate() -> None:
    bytearray(2**31)


@job(max_attempts=2)
async def fails_once(*, context: QueuedJob) -> None:
    context.meta["seen"] = context.meta.get("seen", 0) + 1
    if context.attempts == 0:
        raise RuntimeError("the first attempt fails")


@job()
async def keeps_its_job(*, of_mine: "QueuedJob", note: str = "") -> None:
    of_mine.meta["note"] = note
    setattr(of_mine, "attempts", 7)  # noqa: B010  # a job cannot be changed


@asynccontextmanager
async def working(*plugins: Plugin, **options: Any) -> AsyncIterator[Worker]:
    """A Worker with plugins; it starts when the tables are there."""
    app = Chancy(
        create_chancy().dsn,
        plugins=list(plugins),
        **{"prefix": "billing_", "no_default_plugins": True, **options},
    )
    await migrate(app)
    async with app:
        for queue in QUEUES:
            await app.declare(queue)
        async with Worker(
            app,
            tags={"has=gpu"},
            queue_change_poll_interval=1,
            register_signal_handlers=False,
        ) as worker:
            yield worker


async def end(app: Chancy, reference: Reference) -> QueuedJob:
    ended = await app.wait_for_job(reference, timeout=60)
    assert ended is not None
    return ended


async def until(condition: Any, *, timeout: float = 30) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.02)


def test_a_job_is_a_value() -> None:
    assert greet.job == Job.from_func(greet, scheduled_at=greet.job.scheduled_at)
    assert asyncio.run(greet(name="Ada")) == "Hello, Ada!"
    assert wait.job.kwargs == {"seconds": 60} and wait.job.max_attempts == 3
    assert greet.job.with_kwargs(name="Ada").kwargs == {"name": "Ada"}
    assert greet.job.with_queue("thread").queue == "thread"
    assert greet.job.with_priority(7).priority == 7
    assert greet.job.with_max_attempts(7).max_attempts == 7
    assert greet.job.with_unique_key("key").unique_key == "key"
    assert greet.job.with_meta({"a": 1}).meta == {"a": 1}
    limit = Limit(Limit.Type.TIME, 5)
    assert greet.job.with_limits([limit]).limits == [limit]
    later = datetime(2030, 1, 1, tzinfo=UTC)
    assert greet.job.with_scheduled_at(later).scheduled_at == later
    assert Job.unpack(wait.job.pack()) == wait.job
    assert Limit.deserialize(limit.serialize()) == limit
    assert Queue.unpack(QUEUES[0].pack()) == QUEUES[0]


@pytest.mark.usefixtures("database_url")
async def test_jobs_are_pushed_found_cancelled_and_run_again() -> None:
    async with working() as worker:
        app = worker.chancy
        assert (await end(app, await app.push(greet))).state == State.SUCCEEDED
        named = greet.job.with_kwargs(name="Ada")
        many = [each async for batch in app.push_many([named] * 3) for each in batch]
        ended = await app.wait_for_jobs(many, timeout=60)
        assert [each.state for each in ended] == [State.SUCCEEDED] * 3
        assert len(await app.get_jobs(many)) == 3
        twice = await end(app, await app.push(fails_once))
        assert (twice.state, twice.attempts, twice.meta["seen"]) == (
            State.SUCCEEDED,
            2,
            2,
        )
        assert "the first attempt fails" in twice.errors[0]["traceback"]
        # The context is found by its type, which can be a string, whatever its name; only
        # its meta can change.
        kept = await end(app, await app.push(keeps_its_job.job.with_kwargs(note="a")))
        assert (kept.state, kept.meta["note"]) == (State.FAILED, "a")
        assert "FrozenInstanceError" in kept.errors[0]["traceback"]
        later = datetime.now(tz=UTC) + timedelta(hours=1)
        tomorrow = greet.job.with_scheduled_at(later).with_unique_key("tomorrow")
        first = await app.push(tomorrow)
        assert first == await app.push(tomorrow)
        found = await app.get_job(first)
        assert found and found.state == State.PENDING and found.scheduled_at == later
        # A push is a part of the service's own transaction, and is rolled back with it.
        async with (
            app.pool.connection() as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            gone = await app.push_ex(cursor, greet)
            gone_too = await app.push_many_ex(cursor, [greet, greet])
            await connection.rollback()
        assert await app.get_jobs([gone, *gone_too]) == []
        running = await app.push(wait.job.with_max_attempts(1))
        await until(lambda: any(map(len, worker.executors.values())))
        await app.cancel_job(running)
        assert (await end(app, running)).state == State.FAILED
        async with (
            app.pool.connection() as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            assert await app.cancel_job_ex(cursor, first) == 1
            assert await app.retry_jobs_ex(cursor, [first]) == {"default"}
            assert await app.purge_jobs_ex(cursor, many) == 3
        assert (await end(app, first)).state == State.SUCCEEDED
        await app.retry_jobs([first])
        assert (await end(app, first)).attempts == 1
        # The key of a job that has ended is free again.
        again = await app.push(greet.job.with_unique_key("tomorrow"))
        assert again != first and (await end(app, again)).state == State.SUCCEEDED
        await app.purge_jobs([first])
        assert await app.get_job(first) is None


def push_without_a_loop(url: str) -> list[QueuedJob | None]:
    with Chancy(url, prefix="billing_", no_default_plugins=True) as app:
        references = [app.sync_push(greet.job)]
        references += [
            each for batch in app.sync_push_many([greet.job] * 2) for each in batch
        ]
        assert app.sync_declare(Queue("sync")).name == "sync"
        with (
            app.sync_pool.connection() as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            references += app.sync_push_many_ex(cursor, [greet.job])
            app.sync_declare_ex(cursor, Queue("sync"), upsert=True)
            app.sync_notify(cursor, "mine", {"a": 1})
        return [app.sync_get_job(each) for each in references]


async def test_code_without_a_loop_pushes_too(database_url: str) -> None:
    async with working() as worker:
        heard = asyncio.create_task(worker.hub.wait_for("mine", timeout=60))
        await asyncio.sleep(0)
        pushed = await asyncio.to_thread(push_without_a_loop, database_url)
        assert len(pushed) == 4
        for each in pushed:
            assert each
            ended = await end(worker.chancy, Reference(each.id))
            assert ended.state == State.SUCCEEDED
        (event,) = await heard
        assert event.body == {"a": 1}


@pytest.mark.usefixtures("database_url")
async def test_queues_are_declared_paused_and_deleted() -> None:
    async with working() as worker:
        app = worker.chancy
        events: list[str] = []
        worker.hub.on_any(lambda event: events.append(event.name))
        updated: list[str] = []
        worker.hub.on(
            "worker.queue.updated",
            lambda event: updated.append(event.body["queue"].name),
        )
        changed = await app.declare(Queue("default", polling_interval=2), upsert=True)
        assert changed.polling_interval == 2
        assert (await app.declare(Queue("default"))).polling_interval == 2
        await app.declare(
            Queue("default", executor=Chancy.Executor.Async, polling_interval=1),
            upsert=True,
        )
        assert (await app.get_queue("default")).polling_interval == 1
        assert "thread" in [queue.name for queue in await app.get_all_queues()]
        with pytest.raises(KeyError):
            await app.get_queue("nothing")
        await until(lambda: "thread" in worker.executors)
        await app.pause_queue("thread")
        # The executor of a paused queue stays, and plugins hear of the change.
        await until(lambda: "thread" in updated)
        assert (await app.get_queue("thread")).state == Queue.State.PAUSED
        held = await app.push(greet.job.with_queue("thread"))
        await app.pause_queue("thread", resume_at=timedelta(seconds=1))
        assert (await end(app, held)).state == State.SUCCEEDED
        async with (
            app.pool.connection() as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            assert (await app.declare_ex(cursor, Queue("other"))).name == "other"
            assert await app.pause_queue_ex(cursor, "other") == 1
            assert await app.resume_queue_ex(cursor, "other") == 1
            await app.notify(cursor, "mine", {})
            await app.notify_many(cursor, [("mine", {"a": 1}), ("mine", {"a": 2})])
            await app.delete_queue_ex(cursor, "other", purge_jobs=False)
        await until(lambda: events.count("mine") == 3)
        await app.resume_queue("thread")
        await app.delete_queue("thread")
        await until(lambda: "thread" not in worker)
        assert await app.get_job(held) is None
        gpu = Queue("gpu", tags={r"has=[fg]pu"}, executor=Chancy.Executor.Async)
        cpu = Queue("cpu", tags={"has=cpu"}, executor=Chancy.Executor.Async)
        for queue in (gpu, cpu):
            await app.declare(queue)
        await until(lambda: "gpu" in worker)
        assert "cpu" not in worker


@pytest.mark.usefixtures("database_url")
async def test_limits_hold_in_each_executor() -> None:
    async with working() as worker:
        app = worker.chancy
        limit = [Limit(Limit.Type.TIME, 1)]
        slow = [
            await app.push(wait.job.with_max_attempts(1).with_limits(limit)),
            await app.push(wait_in_steps.job.with_limits(limit)),
            await app.push(compute.job.with_limits(limit)),
        ]
        for reference in slow:
            ended = await end(app, reference)
            assert ended.state == State.FAILED
            assert "TimeoutError" in ended.errors[0]["traceback"]
        starved = await end(app, await app.push(allocate))
        assert "MemoryError" in starved.errors[0]["traceback"]
        unfit = await end(app, await app.push(allocate.job.with_queue("thread")))
        assert "does not support memory limits" in unfit.errors[0]["traceback"]


@pytest.mark.usefixtures("database_url")
async def test_a_worker_is_a_collection_of_queues_that_plugins_can_use() -> None:
    async with working() as worker:
        app = worker.chancy
        await until(lambda: set(worker.executors) == {"default", "thread", "process"})
        assert len(worker) == 3 and worker["thread"] in list(worker)
        assert {"*", "has=gpu", f"worker_id={worker.worker_id}"} <= worker.worker_tags()
        kinds = [type(worker.executors[each.name]) for each in QUEUES]
        assert kinds == [AsyncExecutor, ThreadedExecutor, ProcessExecutor]
        (row,) = await app.get_all_workers()
        assert row["worker_id"] == worker.worker_id
        async with app.pool.connection() as connection:
            await worker.announce_worker(connection)
            assert await worker.fetch_jobs(QUEUES[0], connection, up_to=3) == []
        heard: list[chancy.hub.Event] = []
        for event in ("metrics.counter", "metrics.gauge", "metrics.histogram"):
            worker.hub.on(event, heard.append)
        await worker.increment_counter("mine", 1)
        await worker.record_gauge("mine", 2)
        await worker.record_histogram_value("mine", 3)
        assert [each.body["value"] for each in heard] == [1, 2, 3]
        worker.hub.remove("metrics.gauge", heard.append)
        worker.hub.remove_on_any(heard.append)
        await worker.hub.emit("mine", {})
        pushed = await app.push(wait.job.with_kwargs(seconds=0.5))
        await until(lambda: len(worker.executors["default"]))
        executor = worker.executors["default"]
        assert executor.is_job_running(pushed) and len(executor.get_running_jobs()) == 1
        assert executor.get_running_job(pushed)
        assert executor.free_slots == executor.concurrency - 1 == 99
        assert executor.supports(AsyncExecutor.Capability.CANCELLATION)
        assert executor.get_capabilities() and executor.get_default_concurrency() == 100
        ended = await end(app, pushed)
        # An update whose claim still holds is saved.
        ended.meta["by"] = "a plugin"
        assert await worker.queue_update(ended)
        await worker.flush()
        found = await app.get_job(pushed)
        assert found and found.meta == {"by": "a plugin"}
        mine = worker.manager.add("mine", asyncio.sleep(60))
        await asyncio.sleep(0)
        assert mine in worker.manager
        await worker.manager.cancel("mine")
        retry = worker.database_retry("mine")
        retry.reset()
        waiting = asyncio.create_task(worker.wait_for_shutdown())
        assert await worker.stop(timeout=5)
        await asyncio.wait_for(waiting, 10)
        assert not await worker.queue_update(ended)


class Watching(Plugin):
    """A plugin with every hook."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    @staticmethod
    def get_identifier() -> str:
        return "watching"

    @staticmethod
    def get_dependencies() -> list[str]:
        return ["chancy.leadership"]

    async def run(self, worker: Any, chancy: Any) -> None:
        await self.wait_for_leader(worker)
        while await self.sleep(3600):
            self.calls.append("woken")

    async def on_worker_started(self, *, worker: Any) -> None:
        self.calls.append("worker started")

    async def on_worker_stopped(self, *, worker: Any) -> None:
        self.calls.append("worker stopped")

    async def on_job_starting(self, *, job: QueuedJob, worker: Any) -> QueuedJob:
        self.calls.append("job starting")
        return job

    async def on_job_completed(
        self, *, worker: Any, job: QueuedJob, exc: Any = None, result: Any = None
    ) -> QueuedJob:
        self.calls.append(f"job completed: {result}")
        return job

    async def on_jobs_updated_in_transaction(
        self, *, worker: Any, jobs: Any, cursor: Any
    ) -> None:
        await cursor.execute("SELECT 1")
        self.calls.append(f"{len(jobs)} saved")

    async def on_job_updated(self, *, worker: Any, job: QueuedJob) -> None:
        self.calls.append("job updated")

    async def cleanup(self, chancy: Any) -> int:
        self.calls.append("cleanup")
        return 0


@pytest.mark.usefixtures("database_url")
async def test_a_plugin_s_hooks_are_called() -> None:
    plugin = Watching()
    assert plugin.get_scope() == PluginScope.WORKER and plugin.get_tables() == []
    assert plugin.migrate_key() is plugin.migrate_package() is plugin.api_plugin()
    async with working(plugin, Leadership(), Pruner()) as worker:
        assert plugin.migrator(worker.chancy) is None
        await plugin.migrate(worker.chancy)
        await end(worker.chancy, await worker.chancy.push(greet))
        await until(lambda: "cleanup" in plugin.calls)
        plugin.wake_up()
        await until(lambda: "woken" in plugin.calls)
    saved = ["job starting", "job completed: Hello, World!", "1 saved", "job updated"]
    rest = [call for call in plugin.calls if call not in ("cleanup", "woken")]
    assert rest == ["worker started", *saved, "worker stopped"]
    with pytest.raises(ValueError, match="unsatisfied dependencies"):
        async with working(Watching()):
            pass
    with pytest.raises(ValueError, match="Duplicate plugin"):
        Chancy("postgresql://", plugins=[Leadership(), Leadership()])


async def test_chancys_other_plugins_run_beside_the_library_s(
    database_url: str,
) -> None:
    everything = (ImmediateLeadership(), Recovery(), WorkflowPlugin(), Metrics())
    reprioritize = Reprioritize(Reprioritize.Rules.Age() > -1, check_interval=3600)
    debug = DebugPlugin()
    plugins = [*everything, reprioritize, debug, RetryPlugin(), Cron(), Trigger()]
    async with working(*plugins) as worker:
        app = worker.chancy
        workflow = (
            Workflow("example")
            .add("top", greet)
            .add_group([("left", greet), ("right", greet)], ["top"])
        )
        in_order = Sequence("in order", [greet, greet])
        for id in (await WorkflowPlugin.push(app, workflow), await in_order.push(app)):
            done = await WorkflowPlugin.wait_for_workflow(app, id, timeout=60)
            assert done.state == Workflow.State.COMPLETED
        soon = {"retry_settings": {"backoff": 0, "backoff_jitter": [0, 0]}}
        again = await end(app, await app.push(fails_once.job.with_meta(soon)))
        assert (again.state, again.attempts) == (State.SUCCEEDED, 2)
        later = datetime.now(tz=UTC) + timedelta(hours=1)
        waits = await app.push(greet.job.with_scheduled_at(later))
        assert await reprioritize.reprioritize_jobs(app) == 1
        raised = await app.get_job(waits)
        assert raised and raised.priority == 1
        await until(lambda: debug.get_event_count("queue.pushed"))
        metrics = app.plugins["chancy.metrics"]
        assert isinstance(metrics, Metrics)
        await metrics.flush(app)
        assert await metrics.list_metrics(app)

        paris = ZoneInfo("Europe/Paris")
        by_clock = greet.job.with_unique_key("by the clock")
        await Cron.schedule(app, "0 9 * * *", by_clock, timezone=paris)
        schedules = await Cron.get_schedules(app, unique_keys=["by the clock"])
        assert schedules["by the clock"]["timezone"] == "Europe/Paris"
        await Cron.unschedule(app, "by the clock")
        assert await Cron.get_schedules(app) == {}

        query(database_url, "CREATE TABLE users (id int)")
        trigger = await Trigger.register_trigger(
            app, table_name="users", operations=["INSERT"], job_template=greet
        )
        count = "SELECT count(*)::int FROM billing_jobs WHERE meta ? 'trigger'"
        query(database_url, "INSERT INTO users VALUES (1)")
        assert query(database_url, count) == [(1,)]
        assert await Trigger.disable_trigger(app, trigger)
        query(database_url, "INSERT INTO users VALUES (2)")
        assert query(database_url, count) == [(1,)]
        assert await Trigger.enable_trigger(app, trigger)
        assert list(await Trigger.get_triggers(app)) == [trigger]
        await Trigger.unregister_trigger(app, trigger)


async def test_rules_say_what_the_pruner_deletes(database_url: str) -> None:
    rule = (Pruner.Rules.Queue() == "default") & (Pruner.Rules.Age() > 3600)
    async with working() as worker:
        app = worker.chancy
        old, new = await app.push(greet), await app.push(greet)
        for each in (old, new):
            await end(app, each)
        query(
            database_url,
            "UPDATE billing_jobs SET created_at = NOW() - INTERVAL '2 hours' "
            "WHERE id = %s",
            old.identifier,
        )
        async with (
            app.pool.connection() as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            assert await Pruner(rule).prune(app, cursor) == 1
        assert await app.get_job(old) is None and await app.get_job(new)


@pytest.mark.usefixtures("database_url")
async def test_the_tables_are_created_and_dropped() -> None:
    async with create_chancy() as app:
        assert not await app.is_up_to_date()
        with pytest.raises(MigrationsNeededError):
            await Worker(app, register_signal_handlers=False).start()
        await app.migrate()
        assert await app.is_up_to_date()
        await app.migrate(to_version=0)
        assert not await app.is_up_to_date()


@pytest.mark.usefixtures("database_url")
async def test_jobs_are_pushed_and_run_where_nobody_entered_chancy() -> None:
    app = Chancy(create_chancy().dsn, prefix="billing_", no_default_plugins=True)
    await app.migrate()
    await app.declare(QUEUES[0])
    async with Worker(app, register_signal_handlers=False):
        assert (await end(app, await app.push(greet))).state == State.SUCCEEDED
    await app.pool.close()


@pytest.mark.usefixtures("database_url")
async def test_chancys_own_arguments_and_defaults_are_accepted() -> None:
    log = logging.getLogger("mine")
    async with working(no_default_plugins=False, log=log) as worker:
        app = worker.chancy
        assert app.log is log
        defaults = {"leadership", "pruner", "recovery", "metrics"}
        defaults.add("workflow_plugin")
        assert {name.removeprefix("chancy.") for name in app.plugins} == defaults
        assert (await end(app, await app.push(greet))).state == State.SUCCEEDED
    settings = {"ENGINE": "", "NAME": "shop", "HOST": "db", "USER": "ada"}
    as_in_django: Any = settings
    assert "dbname=shop" in Chancy(as_in_django).dsn
    assert Chancy.Executor.SubInterpreter.endswith("SubInterpreterExecutor")


class Prepared(ProcessExecutor):
    """An executor whose children are prepared, as Chancy documents it."""

    @classmethod
    def on_initialize_worker(cls) -> None:
        super().on_initialize_worker()
        time.sleep(2)
        os.environ["PREPARED"] = "yes"


@job(queue="prepared")
def is_prepared() -> None:
    assert os.environ["PREPARED"] == "yes"


@pytest.mark.usefixtures("database_url")
async def test_a_child_is_prepared_by_its_executor() -> None:
    async with working() as worker:
        app = worker.chancy
        executor = f"{__name__}.{Prepared.__name__}"
        await app.declare(Queue("prepared", executor=executor, concurrency=2))
        # The limit also holds for a job whose child takes longer than the limit to start.
        limited = compute.job.with_limits([Limit(Limit.Type.TIME, 1)])
        endless = await app.push(limited.with_queue("prepared"))
        ended = await end(app, await app.push(is_prepared))
        assert ended.state == State.SUCCEEDED, ended.errors
        assert "TimeoutError" in (await end(app, endless)).errors[0]["traceback"]


# Methods that the Worker or an executor calls itself.
CALLED_BY_THE_LIBRARY = {
    *("start", "on_signal", "on_job_completed", "push", "on_job_starting"),
    *("get_limit", "prepare_job_for_execution", "get_function_and_kwargs"),
    *("run_function", "cancel", "cancel_execution", "capabilities", "clear"),
}


@pytest.mark.parametrize(
    "kind",
    [chancy.Chancy, chancy.Worker, Job, Plugin, chancy.hub.Hub, AsyncExecutor.__base__],
)
def test_each_public_method_is_walked_through(kind: type) -> None:
    source = Path(__file__).read_text()
    methods = [
        name
        for name, value in inspect.getmembers(kind)
        if not name.startswith("_")
        and (inspect.isfunction(value) or inspect.ismethod(value))
    ]
    assert methods
    missing = [name for name in methods if f"{name}(" not in source]
    assert set(missing) - CALLED_BY_THE_LIBRARY == set()
