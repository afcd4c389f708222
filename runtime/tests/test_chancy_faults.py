"""Faults of plain Chancy that the library fixes; if one is gone, its fix can go too.

Nothing of the library runs here except the servers of its tests.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from chancy import Chancy, Job, Queue, QueuedJob, Worker
from chancy.plugin import Plugin
from chancy.plugins.cron import Cron
from chancy.plugins.leadership import Leadership
from chancy.plugins.recovery import Recovery
from psycopg.rows import dict_row

from harness.databases import database, query, url_of

HERE = __name__
EAGER = Queue("default", executor=Chancy.Executor.Async, eager_polling=True)


def mended(piece: str) -> str:
    return f"Chancy {version('chancy')} has fixed this: remove {piece}"


class Untravelled(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__("needs two")


class Panic(BaseException): ...


async def nap(*, seconds: float) -> None:
    await asyncio.sleep(seconds)


def nap_sync(*, seconds: float) -> None:
    time.sleep(seconds)


async def leave() -> None:
    raise SystemExit(3)


async def panic() -> None:
    raise Panic


async def say_nul() -> None:
    raise ValueError("a NUL: \0")


def raise_untravelled() -> None:
    raise Untravelled(1, 2)


def job(name: str, **options: Any) -> Job:
    return Job(func=f"{HERE}.{name}", **options)


@contextlib.asynccontextmanager
async def working(
    url: str, *plugins: Plugin, queue: Queue = EAGER
) -> AsyncIterator[Worker]:
    """Plain Chancy's Worker with short intervals."""
    async with Chancy(
        url,
        prefix="plain_",
        min_connection_pool_size=1,
        no_default_plugins=True,
        plugins=list(plugins),
        log=logging.getLogger("plain"),
    ) as app:
        await app.migrate()
        await app.declare(queue)
        worker = Worker(
            app,
            register_signal_handlers=False,
            heartbeat_poll_interval=1,
            queue_change_poll_interval=1,
            shutdown_timeout=1,
            backoff_max=0.1,
        )
        await worker.start()
        try:
            yield worker
        finally:
            with contextlib.suppress(Exception):
                await worker.stop()


async def happens(
    condition: Callable[[], bool | Awaitable[bool]], *, within: float = 60
) -> bool:
    """Whether the condition becomes true in time."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        result = condition()
        if result if isinstance(result, bool) else await result:
            return True
        await asyncio.sleep(0.1)
    return False


def tasks(worker: Worker) -> set[str]:
    return {task.get_name() for task in worker.manager}


def state(url: str, id: object) -> str:
    ((found,),) = query(url, "SELECT state FROM plain_jobs WHERE id = %s", id)
    return str(found)


def kill_connections(url: str) -> bool:
    query(
        url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    return True


def test_a_dropped_connection_ends_plugins_for_good(database_url: str) -> None:
    async def run() -> None:
        plugins = [Leadership(poll_interval=1), Cron(poll_interval=1)]
        async with working(database_url, *plugins) as worker:
            names = {type(plugin).__name__ for plugin in plugins}
            assert names <= tasks(worker)
            gone = await happens(
                lambda: kill_connections(database_url) and not names & tasks(worker)
            )
            assert gone, mended("chancy_runtime.supervision.supervisor.Supervisor")
            assert not await happens(lambda: bool(names & tasks(worker)), within=2)

    asyncio.run(run())


def test_a_read_only_database_ends_the_heartbeat(database_url: str) -> None:
    async def run() -> None:
        async with working(database_url) as worker:
            with psycopg.connect(database_url, autocommit=True) as connection:
                name = connection.info.dbname
                connection.execute(
                    f"ALTER DATABASE {name} SET default_transaction_read_only = on"
                )
            kill_connections(database_url)
            gone = await happens(lambda: "heartbeat" not in tasks(worker))
            assert gone, mended(
                "ReadOnlySqlTransaction of chancy_runtime.supervision.supervisor"
            )

    asyncio.run(run())


def test_a_poll_that_loses_its_connection_fails_running_jobs(database_url: str) -> None:
    async def run() -> None:
        queue = Queue("default", executor=Chancy.Executor.Async, polling_interval=1)
        async with working(database_url, queue=queue) as worker:
            reference = await worker.chancy.push(job("nap", kwargs={"seconds": 60}))
            id = reference.identifier
            assert await happens(lambda: state(database_url, id) == "running")
            failed = False
            for _ in range(30):
                kill_connections(database_url)
                # The result has to be saved before the next one.
                failed = await happens(
                    lambda: state(database_url, id) == "failed", within=2
                )
                if failed:
                    break
            assert failed, mended("chancy_runtime.execution.feeder.Feeder")

    asyncio.run(run())


def test_a_nul_in_an_error_ends_the_saving_of_results(database_url: str) -> None:
    async def run() -> None:
        async with working(database_url) as worker:
            await worker.chancy.push(job("say_nul"))
            gone = await happens(lambda: "updates" not in tasks(worker))
            assert gone, mended("chancy_runtime.jobs.results.storable")

    asyncio.run(run())


def test_a_row_with_an_unknown_limit_ends_its_queue(database_url: str) -> None:
    async def run() -> None:
        async with working(database_url) as worker:
            query(
                database_url,
                "INSERT INTO plain_jobs (id, queue, func, limits) VALUES "
                """(gen_random_uuid(), 'default', 'a.b', '[{"t": "moon", "v": 1}]')""",
            )
            gone = await happens(lambda: "queue_default" not in tasks(worker))
            assert gone, mended("chancy_runtime.jobs.claims.Claims._sort_out")

    asyncio.run(run())


def test_a_queue_row_that_cannot_be_read_stops_all_queues(
    database_url: str,
) -> None:
    async def run() -> None:
        async with working(database_url) as worker:
            query(database_url, "INSERT INTO plain_queues (name) VALUES ('untagged')")
            gone = await happens(lambda: "queues" not in tasks(worker))
            assert gone, mended("Chancy.get_all_queues")

    asyncio.run(run())


class Grumpy(Plugin):
    """A plugin whose hook raises an error."""

    @staticmethod
    def get_identifier() -> str:
        return "grumpy"

    async def on_job_completed(self, **_: Any) -> QueuedJob:
        raise RuntimeError("not today")


@pytest.mark.parametrize(
    ("name", "plugins", "piece"),
    [
        ("nap", [Grumpy], "chancy_runtime.execution.hooks"),
        ("panic", [], "BaseException of chancy_runtime.execution.executors._Contained"),
    ],
)
def test_two_faults_leave_a_job_running_for_ever(
    name: str, plugins: list[type[Plugin]], piece: str, database_url: str
) -> None:
    async def run() -> None:
        async with working(database_url, *(each() for each in plugins)) as worker:
            kwargs = {"seconds": 0} if name == "nap" else {}
            reference = await worker.chancy.push(job(name, kwargs=kwargs))
            id = reference.identifier
            executor = worker.executors["default"]
            assert await happens(lambda: state(database_url, id) != "pending")
            assert await happens(lambda: len(executor) == 0)
            await worker.flush()
            assert state(database_url, id) == "running", mended(piece)

    asyncio.run(run())


def test_a_rate_limit_follows_the_clock_of_the_worker(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 7200)

    async def run() -> None:
        queue = Queue(
            "default",
            executor=Chancy.Executor.Async,
            rate_limit=1,
            rate_limit_window=60,
        )
        async with working(database_url, queue=queue):
            starts = "SELECT window_start FROM plain_queue_rate_limits"
            assert await happens(lambda: bool(query(database_url, starts)))
            ((start,),) = query(database_url, starts)
            assert start > now() + 3600, mended(
                "chancy_runtime.jobs.rate_limit.capacity"
            )

    asyncio.run(run())


def test_recovery_grants_attempts_without_end(database_url: str) -> None:
    async def run() -> None:
        async with working(database_url) as worker:
            reference = await worker.chancy.push(
                job("nap", scheduled_at=datetime(2100, 1, 1, tzinfo=UTC))
            )
            id = reference.identifier
            for _ in range(10):
                query(
                    database_url,
                    "UPDATE plain_jobs SET state = 'running', taken_by = 'lost' "
                    "WHERE id = %s",
                    id,
                )
                async with (
                    worker.chancy.pool.connection() as connection,
                    connection.cursor(row_factory=dict_row) as cursor,
                ):
                    await Recovery.recover(worker, worker.chancy, cursor)
            rows = query(database_url, "SELECT state, max_attempts FROM plain_jobs")
            assert rows == [("pending", 11)], mended("Recovery.recover")

    asyncio.run(run())


def test_leadership_waits_for_its_first_poll(database_url: str) -> None:
    async def run() -> None:
        async with working(database_url, Leadership(poll_interval=60)) as worker:
            elected = await happens(worker.is_leader.is_set, within=2)
            assert not elected, mended("Leadership.run")

    asyncio.run(run())


def test_a_clean_stop_leaves_the_lease_and_the_row(database_url: str) -> None:
    async def run() -> None:
        async with working(database_url, Leadership(poll_interval=1)) as worker:
            assert await happens(worker.is_leader.is_set)
            await worker.stop()
            lease = query(database_url, "SELECT worker_id FROM plain_leader")
            assert lease, mended("Leadership.on_worker_stopped")
            rows = query(database_url, "SELECT worker_id FROM plain_workers")
            assert rows, mended("the DELETE of Worker._sign_off")

    asyncio.run(run())


def test_a_refused_listen_hangs_the_start(server_url: str) -> None:
    role = f"limited_{uuid4().hex}"

    async def run(url: str) -> None:
        async with Chancy(
            url,
            prefix="plain_",
            min_connection_pool_size=1,
            max_connection_pool_size=1,
            no_default_plugins=True,
            log=logging.getLogger("plain"),
        ) as app:
            await app.migrate()
            worker = Worker(app, register_signal_handlers=False)
            starting = asyncio.create_task(worker.start())
            listening = await happens(
                lambda: (
                    {"heartbeat"} <= tasks(worker)
                    and "notifications" not in tasks(worker)
                )
            )
            assert listening, mended("chancy_runtime.listening.listen_at_start")
            await asyncio.wait([starting], timeout=3)
            hangs = not starting.done()
            starting.cancel()
            await asyncio.wait([starting])
            await worker.manager.cancel_all()
            assert hangs, mended("chancy_runtime.listening.listen_at_start")

    query(server_url, f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 1")
    try:
        with database(server_url) as url:
            name = psycopg.conninfo.conninfo_to_dict(url)["dbname"]
            query(server_url, f"ALTER DATABASE {name} OWNER TO {role}")
            asyncio.run(run(url_of(server_url, str(name), role)))
    finally:
        query(server_url, f"DROP ROLE {role}")


def test_a_stop_waits_for_the_next_poll(database_url: str) -> None:
    async def run() -> None:
        queue = Queue("default", executor=Chancy.Executor.Async, polling_interval=4)
        async with working(database_url, queue=queue) as worker:
            reference = await worker.chancy.push(job("nap", kwargs={"seconds": 0.5}))
            id = reference.identifier
            assert await happens(lambda: state(database_url, id) == "running")
            since = time.monotonic()
            await worker.stop(timeout=20)
            assert time.monotonic() - since > 2.5, mended("Feeder._serve's drain")

    asyncio.run(run())


def test_system_exit_in_a_job_ends_the_process(database_url: str) -> None:
    async def run() -> None:
        async with working(database_url) as worker:
            await worker.chancy.push(job("leave"))
            await asyncio.sleep(5)

    try:
        asyncio.run(run())
    except SystemExit:
        return
    pytest.fail(mended("chancy_runtime.execution.executors._Contained"))


def test_an_error_that_cannot_be_pickled_fails_other_jobs(database_url: str) -> None:
    async def run() -> None:
        queue = Queue("default", executor=Chancy.Executor.Process, concurrency=2)
        async with working(database_url, queue=queue) as worker:
            neighbour = await worker.chancy.push(
                job("nap_sync", kwargs={"seconds": 60})
            )
            id = neighbour.identifier
            assert await happens(lambda: state(database_url, id) == "running")
            await worker.chancy.push(job("raise_untravelled"))
            failed = await happens(lambda: state(database_url, id) == "failed")
            assert failed, mended(
                "chancy_runtime.execution.children.Children"
                " and chancy_runtime.execution.executors._can_travel"
            )

    asyncio.run(run())


def test_cron_schedule_drops_a_run_that_is_due(database_url: str) -> None:
    async def run() -> None:
        async with working(database_url, Cron(poll_interval=60)) as worker:
            due = job("nap", kwargs={"seconds": 0}, unique_key="due")
            await Cron.schedule(worker.chancy, "0 0 1 1 *", due)
            query(
                database_url, "UPDATE plain_cron SET next_run = NOW() - '1 s'::interval"
            )
            await Cron.schedule(worker.chancy, "0 0 1 1 *", due)
            ((due_still,),) = query(
                database_url, "SELECT next_run < NOW() FROM plain_cron"
            )
            assert not due_still, mended("the comparison of schedule_cron_jobs")

    asyncio.run(run())
