"""Each argument and attribute of Chancy's classes works, or its refusal names a replacement."""

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import billing_service
import chancy
import chancy_runtime
import pytest
from billing_service import create_chancy, succeeds
from chancy.executors import asyncex, process, thread
from chancy.plugins import cron, leadership, pruner, recovery, sentry
from chancy_runtime import (
    Chancy,
    Cron,
    Leadership,
    Pruner,
    QueuedJob,
    Recovery,
    Settings,
    Worker,
    WorkersError,
    declare_queues,
)

from harness.databases import query

pytestmark = pytest.mark.anyio

URL = "postgresql://u@127.0.0.1:1/d"
# For each class, the arguments that work and those that are refused.
ARGUMENTS: dict[type, tuple[str, str]] = {
    chancy.Chancy: (
        "dsn plugins prefix min_connection_pool_size max_connection_pool_size "
        "notifications log no_default_plugins",
        "poll_reconnect_timeout",
    ),
    chancy.Worker: (
        "chancy worker_id queue_change_poll_interval tags register_signal_handlers",
        "heartbeat_poll_interval heartbeat_timeout shutdown_timeout backoff_initial "
        "backoff_max backoff_max_retries",
    ),
    leadership.Leadership: ("poll_interval timeout", ""),
    cron.Cron: ("poll_interval", ""),
    pruner.Pruner: ("rule maximum_to_prune poll_interval", ""),
    recovery.Recovery: ("poll_interval", ""),
    sentry.SentryPlugin: ("", ""),
    asyncex.AsyncExecutor: ("worker queue", ""),
    thread.ThreadedExecutor: ("worker queue", ""),
    process.ProcessExecutor: ("worker queue maximum_jobs_per_worker", "mp_context"),
}


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_each_argument_of_chancy_is_known_here(kind: type) -> None:
    works, refused = ARGUMENTS[kind]
    of_chancy = inspect.signature(kind).parameters

    assert sorted(of_chancy) == sorted(f"{works} {refused}".split())
    ours = inspect.signature(getattr(chancy_runtime, kind.__name__)).parameters
    has_any = any(str(each) == "**options: Any" for each in ours.values())
    assert has_any or set(works.split()) <= set(ours)


REFUSED = [
    (kind, name) for kind, names in ARGUMENTS.items() for name in names[1].split()
]
SETTINGS = {
    "heartbeat_timeout": "Settings(heartbeat_timeout=…)",
    "heartbeat_poll_interval": "Settings(heartbeat_timeout=…)",
    "shutdown_timeout": "Settings(shutdown_grace=…)",
}


@pytest.mark.parametrize(("kind", "name"), REFUSED)
def test_an_argument_without_effect_is_refused_with_its_replacement(
    kind: type, name: str
) -> None:
    app = Chancy(URL)
    first: dict[type, tuple[object, ...]] = {
        chancy.Chancy: (URL,),
        chancy.Worker: (app,),
        process.ProcessExecutor: (Worker(app), chancy.Queue("q")),
    }
    create: Any = getattr(chancy_runtime, kind.__name__)

    with pytest.raises(WorkersError) as error:
        create(*first[kind], **{name: 5})

    (line,) = str(error.value).splitlines()
    assert line.startswith(f"{kind.__name__} takes no {name} here: ")
    assert SETTINGS.get(name, "leave it out") in line


def test_an_argument_that_chancy_does_not_have_raises_python_s_own_error() -> None:
    app: Any = Chancy(URL)
    untyped: Any = Worker
    for create in (lambda: untyped(app, spam=1), lambda: Chancy(URL, spam=1)):
        with pytest.raises(TypeError, match="unexpected keyword argument 'spam'"):
            create()


def test_a_worker_on_chancy_s_own_class_is_refused_in_one_line() -> None:
    app: Any = chancy.Chancy(URL)

    with pytest.raises(WorkersError, match=r"on chancy.app.Chancy: import Chancy from"):
        Worker(app)


def test_an_attribute_that_has_no_effect_cannot_be_set() -> None:
    app = Chancy(URL)
    worker = Worker(app)

    with pytest.raises(WorkersError, match="Worker takes no backoff_max here"):
        worker.backoff_max = 5
    with pytest.raises(WorkersError, match="takes no poll_reconnect_timeout here"):
        app.poll_reconnect_timeout = 5


@asynccontextmanager
async def working(
    *plugins: chancy.plugin.Plugin, settings: Settings, change: Any = None
) -> AsyncIterator[Worker]:
    """A Worker of the service with other plugins, and its events by name."""
    example = create_chancy()
    app = Chancy(
        example.dsn,
        prefix=example.prefix,
        plugins=list(plugins),
        no_default_plugins=True,
        settings=settings,
        log=logging.getLogger("app.billing.workers"),
    )
    async with app:
        await declare_queues(app, billing_service.QUEUES)
        worker = Worker(app, register_signal_handlers=False)
        if change is not None:
            change(worker)
        async with worker:
            yield worker


SLOW = Settings(poll_interval=3600, leader_lease=3600)


@pytest.mark.usefixtures("tables")
async def test_a_plugin_s_own_interval_comes_before_the_setting() -> None:
    plugins = [
        Leadership(poll_interval=1, timeout=30),
        Pruner(poll_interval=1),
        Recovery(poll_interval=1),
    ]
    events = ["leadership.renewed", "pruner.removed", "recovery.recovered"]
    async with working(*plugins, settings=SLOW) as worker:
        for event in events:
            for _ in range(3):
                assert await worker.hub.wait_for(event, timeout=60), event


async def test_cron_polls_at_its_interval(tables: str) -> None:
    async with working(Cron(poll_interval=1), settings=SLOW) as worker:
        for key in ("first", "second"):
            job = succeeds.job.with_kwargs(text="hello").with_unique_key(key)
            await Cron.schedule(worker.chancy, "0 0 1 1 *", job)
            query(tables, "UPDATE billing_cron SET next_run = NOW()")
            async with asyncio.timeout(60):
                while query(
                    tables, "SELECT 1 FROM billing_cron WHERE last_run IS NULL"
                ):
                    await asyncio.sleep(0.05)


class Quiet(Leadership):
    """A plugin of a team, with a hook that does not call the library's hook."""

    async def on_worker_started(self, *, worker: Any) -> None: ...


@pytest.mark.parametrize(
    ("kind", "options", "seconds"),
    [(Leadership, {"timeout": 30}, 30), (Quiet, {}, SLOW.leader_lease)],
)
async def test_a_leader_s_lease_is_its_timeout_or_the_setting(
    kind: type[Leadership], options: dict[str, int], seconds: int, tables: str
) -> None:
    async with working(kind(**options), settings=SLOW) as worker:
        await asyncio.wait_for(worker.is_leader.wait(), 10)
        ((lease,),) = query(
            tables,
            "SELECT extract(epoch FROM expires_at - NOW())::float FROM billing_leader",
        )
    assert 0 < lease <= seconds < 100 * lease


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize(
    "options", [{"poll_interval": 20, "timeout": 10}, {"poll_interval": 120}]
)
async def test_a_lease_that_ends_before_it_is_renewed_is_refused(
    options: dict[str, int],
) -> None:
    with pytest.raises(WorkersError, match="would end before it is renewed"):
        async with working(Leadership(**options), settings=Settings(leader_lease=60)):
            pass


async def test_results_are_collected_for_the_worker_s_interval(
    tables: str,
) -> None:
    def collect_for_an_hour(worker: Worker) -> None:
        worker.send_outgoing_interval = 3600

    states = "SELECT state FROM billing_jobs"
    async with working(settings=SLOW, change=collect_for_an_hour) as worker:
        await worker.chancy.push(succeeds.job.with_kwargs(text="hello"))
        async with asyncio.timeout(60):
            while worker.outgoing.empty():
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)
        assert query(tables, states) == [("running",)]
        await worker.flush()
        assert query(tables, states) == [("succeeded",)]


async def test_a_worker_s_id_is_the_one_that_it_starts_with(tables: str) -> None:
    def rename(worker: Worker) -> None:
        worker.worker_id = "renamed"

    async with working(settings=SLOW, change=rename) as worker:
        pushed = await worker.chancy.push(succeeds.job.with_kwargs(text="hello"))
        ended = await worker.chancy.wait_for_job(pushed, timeout=60)
        assert ended and ended.state == QueuedJob.State.SUCCEEDED
        assert query(tables, "SELECT taken_by FROM billing_jobs") == [("renamed",)]
        assert query(tables, "SELECT worker_id FROM billing_workers") == [("renamed",)]


@pytest.mark.usefixtures("tables")
async def test_a_retry_raises_errors_that_it_does_not_retry() -> None:
    async with working(settings=SLOW) as worker:
        retry = worker.database_retry("mine")
        with pytest.raises(ZeroDivisionError):
            await retry.wait(ZeroDivisionError())
