"""Roles with the rights of `migrate --print-grants` can push and work, and nothing else."""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from billing_service import QUEUES, succeeds
from chancy.plugin import Plugin
from chancy.plugins.metrics import Metrics
from chancy.plugins.workflow import Workflow, WorkflowPlugin
from chancy_runtime import (
    Chancy,
    Cron,
    CronJob,
    Job,
    Leadership,
    PrometheusPlugin,
    Pruner,
    QueuedJob,
    Recovery,
    Reference,
    Settings,
    Worker,
    WorkersError,
    check_database,
    declare_queues,
    migrate,
    schedule_cron_jobs,
)
from chancy_runtime.plugins.prometheus import exposition
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

from harness.databases import database, query, url_of
from harness.program import Commands, Ended
from harness.recorder import plain_chancy
from harness.servers import embedded_server

PUSHER, WORKER = "billing_pusher", "billing_worker"
HELLO = succeeds.job.with_kwargs(text="hello")


def plugins() -> list[Plugin]:
    return [
        Leadership(),
        Pruner(),
        Recovery(),
        Cron(),
        Metrics(),
        WorkflowPlugin(polling_interval=1),
    ]


def app_of(url: str, user: str | None = None, **options: Any) -> Chancy:
    if user:
        url = url_of(url, str(conninfo_to_dict(url)["dbname"]), user)
    settings = Settings(poll_interval=1)
    return plain_chancy(url, plugins=plugins(), settings=settings, **options)


def print_grants(url: str, workers: Commands) -> Ended:
    # The other plugins are in each service.
    return workers("migrate", "--print-grants", url=url, plugins=plugins()[4:])


@pytest.fixture(scope="module")
def server_with_roles() -> Iterator[str]:
    with embedded_server() as url:
        yield url


@pytest.fixture
def url(server_with_roles: str, workers: Commands) -> Iterator[str]:
    """A database with the tables, a table of the service, and the two roles."""
    with database(server_with_roles) as url:
        asyncio.run(migrate(app_of(url)))
        query(url, "CREATE TABLE orders (id int)")
        for _ in range(2):  # It can run again.
            printed = print_grants(url, workers)
            assert (printed.status, printed.errors) == (0, "")
            with psycopg.connect(url, autocommit=True) as connection:
                notices: list[errors.Diagnostic] = []
                connection.add_notice_handler(notices.append)
                connection.execute(printed.output)
                assert [each.message_primary for each in notices] == []
        yield url


def refused(url: str, user: str, *statements: str) -> list[str]:
    """The statements that a role may not run."""
    found = []
    as_user = url_of(url, str(conninfo_to_dict(url)["dbname"]), user)
    with psycopg.connect(as_user, autocommit=True) as connection:
        for statement in statements:
            with suppress(errors.UndefinedObject):
                try:
                    connection.execute(statement)
                except errors.InsufficientPrivilege:
                    found.append(statement)
    return found


NOT_FOR_A_PUSHER = [
    "UPDATE billing_jobs SET func = 'os.system'",
    "UPDATE billing_jobs SET kwargs = '{}'",
    "UPDATE billing_jobs SET attempts = 0",
    "UPDATE billing_jobs SET taken_by = 'me'",
    "INSERT INTO billing_jobs (id, queue, func, state) "
    "VALUES (gen_random_uuid(), 'default', 'a.b', 'succeeded')",
    "DELETE FROM billing_jobs",
    "SELECT FROM billing_workers",
    "UPDATE billing_workers SET worker_id = 'me'",
    "SELECT executor FROM billing_queues",
    "UPDATE billing_queues SET state = 'paused'",
    "INSERT INTO billing_cron (unique_key) VALUES ('a')",
    "SELECT FROM billing_cron",
    "DELETE FROM billing_leader",
    "SELECT FROM billing_metrics",
    "SELECT FROM billing_workflows",
    "UPDATE billing_schema_version SET version = 0",
]
NOT_FOR_BOTH = [
    "SELECT FROM orders",
    "INSERT INTO orders VALUES (1)",
    "TRUNCATE billing_jobs",
    "ALTER TABLE billing_jobs ADD mine int",
    "ALTER TABLE billing_jobs DISABLE ROW LEVEL SECURITY",
    "DROP TABLE billing_jobs",
    "CREATE INDEX mine ON billing_jobs (id)",
    "CREATE TRIGGER mine AFTER INSERT ON billing_jobs FOR EACH ROW "
    "EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    "CREATE TABLE mine (id int)",
    "DELETE FROM billing_schema_version",
    "CREATE ROLE mine",
]


async def pushed(app: Chancy, jobs: list[Job]) -> list[Reference]:
    """Pushes a batch."""
    return [each async for batch in app.push_many(jobs) for each in batch]


def test_a_pusher_pushes_and_can_do_nothing_else(url: str) -> None:
    async def push() -> None:
        app = app_of(url, PUSHER, mode="push")
        await check_database(app)
        async with app:
            one = await app.push(succeeds.job.with_unique_key("once"))
            assert await app.push(HELLO.with_unique_key("once")) == one
            assert len(set(await pushed(app, [HELLO] * 3))) == 3
            keyed = [HELLO.with_unique_key(key) for key in ("once", "a", "b")]
            assert (await pushed(app, keyed))[0] == one
            found = await app.get_job(one)
            assert found and found.state == QueuedJob.State.PENDING
            assert await app.is_writable(timeout=5)

    asyncio.run(push())

    assert query(url, "SELECT count(*)::int FROM billing_jobs") == [(6,)]
    statements = [*NOT_FOR_A_PUSHER, *NOT_FOR_BOTH]
    assert refused(url, PUSHER, *statements) == statements


def test_a_worker_works_and_can_do_nothing_else(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        app = app_of(url, WORKER, log=logging.getLogger("app.billing.workers"))
        await check_database(app)
        async with app:
            await declare_queues(app, QUEUES)
            cron_job = CronJob(job=HELLO, cron="* * * * *")
            await schedule_cron_jobs(app, [cron_job])
            query(url, "UPDATE billing_cron SET next_run = NOW()")
            old = "NOW() - INTERVAL '9 days'"
            query(
                url,
                "INSERT INTO billing_jobs (id, queue, func, state, completed_at) "
                f"VALUES (gen_random_uuid(), 'x', 'a.b', 'succeeded', {old})",
            )
            async with Worker(app, register_signal_handlers=False):
                done = await app.wait_for_job(await app.push(HELLO), timeout=60)
                assert done and done.state == QueuedJob.State.SUCCEEDED
                steps = Workflow("steps").add("one", HELLO).add("two", HELLO, ["one"])
                id = await WorkflowPlugin.push(app, steps)
                ended = await WorkflowPlugin.wait_for_workflow(app, id, timeout=60)
                assert ended.state == Workflow.State.COMPLETED
                await app.pause_queue("default")
                await app.resume_queue("default")
                async with asyncio.timeout(60):
                    while query(
                        url,
                        "SELECT FROM billing_jobs WHERE completed_at < NOW() - "
                        "INTERVAL '1 day' UNION ALL "
                        "SELECT FROM billing_cron WHERE last_run IS NULL",
                    ):
                        await asyncio.sleep(0.05)
                assert app.monitor.failing == {}

    with caplog.at_level(logging.WARNING):
        asyncio.run(work())

    assert "permission denied" not in caplog.text
    statements = NOT_FOR_BOTH
    assert refused(url, WORKER, *statements) == statements


def test_a_pusher_s_metrics_show_waiting_jobs(url: str) -> None:
    async def scrape() -> bytes:
        app = app_of(url, PUSHER, mode="push")
        plugin = PrometheusPlugin(service="billing")
        app.plugins[plugin.get_identifier()] = plugin
        async with app:
            await app.push(HELLO)
            text, _ = await exposition([app], "", with_process=False)
            return text

    query(url, "INSERT INTO billing_queues (name) VALUES ('empty')")
    shown = asyncio.run(scrape()).decode()

    assert 'chancy_database_up{service="billing"} 1.0' in shown
    assert 'chancy_queue_depth{queue="default",service="billing"} 1.0' in shown
    assert 'chancy_queue_depth{queue="empty",service="billing"} 0.0' in shown


@pytest.mark.parametrize(
    "command",
    [
        *("status", "jobs", "queues", "workers", "cron", "pause default"),
        *("resume default", "retry --state failed", "cancel --state pending"),
        "purge --state failed --yes",
    ],
)
def test_a_worker_s_role_serves_the_commands(
    command: str, url: str, workers: Commands
) -> None:
    query(url, "INSERT INTO billing_queues (name) VALUES ('default')")
    for state in ("failed", "pending"):
        query(
            url,
            "INSERT INTO billing_jobs (id, queue, func, state) "
            f"VALUES (gen_random_uuid(), 'default', 'a.b', '{state}')",
        )
    as_worker = url_of(url, str(conninfo_to_dict(url)["dbname"]), WORKER)

    done = workers(*command.split(), url=as_worker)

    assert (done.status, done.errors) == (0, "")


def test_a_command_that_a_role_may_not_run_names_a_role_that_may(
    url: str, workers: Commands
) -> None:
    as_pusher = url_of(url, str(conninfo_to_dict(url)["dbname"]), PUSHER)

    done = workers("workers", url=as_pusher)

    assert done.status == 1
    assert "permission denied for table billing_workers" in done.errors
    assert (
        "or as a role with the rights that migrate --print-grants prints" in done.errors
    )


def test_neither_can_migrate_or_be_mistaken_for_the_other(url: str) -> None:
    with pytest.raises(
        WorkersError, match="permission denied for table billing_worker"
    ):
        asyncio.run(check_database(app_of(url, PUSHER)))
    query(url, "DROP INDEX billing_runtime_jobs_now")
    for user in (PUSHER, WORKER):
        with pytest.raises(WorkersError, match="must be owner of table billing_jobs"):
            asyncio.run(migrate(app_of(url, user)))


def test_grants_before_the_tables_name_the_command(
    server_with_roles: str, workers: Commands
) -> None:
    with database(server_with_roles) as url:
        printed = print_grants(url, workers)

    assert (printed.status, printed.output) == (1, "")
    (line,) = printed.errors.splitlines()
    assert "there are no tables billing_*" in line and "run migrate first" in line
