"""The tables: created once, secured, checked at the start, shown by the command."""

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from billing_service import create_chancy
from chancy.plugins.metrics import Metrics
from chancy.plugins.workflow import WorkflowPlugin
from chancy_runtime import (
    Chancy,
    Cron,
    Leadership,
    Pruner,
    Recovery,
    Trigger,
    WorkersError,
    check_database,
    job,
    migrate,
)
from chancy_runtime.commands.tables import read_status
from chancy_runtime.postgres.connecting import connect
from chancy_runtime.postgres.migrations import parts_of, tables_of
from psycopg.conninfo import conninfo_to_dict

from harness.commands import environment, run
from harness.databases import database, query, url_of
from harness.databases import tables as list_tables
from harness.program import Commands
from harness.recorder import Recorder, make_tables, plain_chancy
from harness.servers import embedded_server
from harness.starts import line_of_failed_start

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def server_with_roles() -> Iterator[str]:
    with embedded_server() as url:
        yield url


@pytest.fixture
def own_server_url(server_with_roles: str) -> Iterator[str]:
    """A database on a server on which no other test creates roles at the same time."""
    with database(server_with_roles) as url:
        yield url
    for (role,) in query(
        server_with_roles,
        "SELECT rolname FROM pg_roles WHERE rolname !~ '^(pg_|postgres$)'",
    ):
        query(server_with_roles, f"DROP ROLE {role}")


def of_user(url: str, user: str) -> str:
    """The URL of a database for another user."""
    return url_of(url, str(conninfo_to_dict(url)["dbname"]), user)


async def test_migrate_creates_every_table_that_chancy_needs(
    database_url: str,
) -> None:
    status = await read_status(create_chancy())
    assert not status["ok"]
    assert "nothing applied" in status["parts"][0]["text"]

    await migrate(create_chancy())

    async with create_chancy() as chancy:
        assert await chancy.is_up_to_date()
    status = await read_status(create_chancy())
    assert status["ok"]
    assert [part["due"] for part in status["parts"]] == [[]] * len(status["parts"])


async def test_migrating_again_or_twice_at_once_is_harmless(
    database_url: str,
) -> None:
    await asyncio.gather(*(migrate(create_chancy()) for _ in range(4)))
    await migrate(create_chancy())

    assert (await read_status(create_chancy()))["ok"]


async def test_every_table_has_row_level_security(tables: str) -> None:
    with psycopg.connect(tables) as connection:
        rows = connection.execute(
            "SELECT tablename, rowsecurity FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()

    assert rows
    assert [name for name, secured in rows if not secured] == []


async def test_a_start_without_the_tables_names_the_command(database_url: str) -> None:
    with pytest.raises(WorkersError, match=r"run python -m \S+\.workers migrate"):
        await check_database(create_chancy())

    assert not (await read_status(create_chancy()))["ok"]


async def test_chancys_own_migrate_finds_nothing_left_to_do(chancy: Chancy) -> None:
    await chancy.migrate()

    assert (await read_status(create_chancy()))["ok"]


def test_status_shows_the_target_and_due_migrations(
    workers: Commands, database_url: str
) -> None:
    before = workers("status", url=database_url)
    assert before.status == 1
    assert "billing_* at /" in before.output
    assert "chancy: nothing applied, due: v1, v2" in before.output
    assert before.output.endswith("run python -m app.billing.workers migrate\n")
    assert list_tables(database_url) == []

    migrated = workers("migrate", url=database_url)
    assert migrated.status == 0
    assert "v8 applied" in migrated.output

    after = workers("status", url=database_url)
    assert after.status == 0
    assert "due" not in after.output
    assert list_tables(database_url) == [
        "billing_cron",
        "billing_jobs",
        "billing_leader",
        "billing_queue_rate_limits",
        "billing_queues",
        "billing_schema_version",
        "billing_workers",
    ]
    status = json.loads(workers("status", "--json", url=database_url).output)
    assert status["ok"] and status["prefix"] == "billing_"


def test_the_password_is_never_shown(workers: Commands) -> None:
    url = "postgresql://someone:hunter2@127.0.0.1:1/billing"

    for command in ("status", "migrate"):
        result = workers(command, url=url)
        assert result.status == 1
        (line,) = result.errors.splitlines()
        assert "127.0.0.1:1/billing" in line and "Connection refused" in line
        assert "hunter2" not in result.output + result.errors


@pytest.mark.parametrize(
    ("table", "columns"),
    [("jobs", "mine text"), ("cron", "mine text"), ("schema_version", "mine text")],
)
def test_a_table_of_the_service_s_own_is_named_and_left_alone(
    table: str, columns: str, workers: Commands, database_url: str
) -> None:
    query(database_url, f"CREATE TABLE billing_{table} ({columns})")

    result = workers("migrate", url=database_url)

    assert result.status == 1
    (line,) = result.errors.splitlines()
    assert f"billing_{table} exists at " in line
    assert "not belong to Chancy" in line and "prefix" in line
    assert list_tables(database_url) == [f"billing_{table}"]


@pytest.mark.parametrize(
    "statement",
    ["VIEW billing_jobs AS SELECT 1 AS mine", "TYPE billing_jobs AS (mine text)"],
)
def test_another_object_with_the_name_is_not_called_a_table(
    statement: str, workers: Commands, database_url: str
) -> None:
    query(database_url, f"CREATE {statement}")

    result = workers("migrate", url=database_url)

    (line,) = result.errors.splitlines()
    assert (
        "billing_jobs exists at " in line and "not belong to Chancy: rename it" in line
    )
    assert "table" not in line


def test_a_table_that_a_migration_would_drop_is_left_alone(
    workers: Commands, database_url: str
) -> None:
    query(database_url, "CREATE TABLE billing_metrics (mine text)")
    query(database_url, "INSERT INTO billing_metrics VALUES ('kept')")

    result = workers("migrate", url=database_url, plugins=[Metrics()])

    assert "does not belong to Chancy" in result.errors
    assert query(database_url, "SELECT * FROM billing_metrics") == [("kept",)]


def test_a_user_who_may_not_create_tables_gets_an_error(
    workers: Commands, own_server_url: str
) -> None:
    query(own_server_url, "CREATE ROLE nobody LOGIN")

    result = workers("migrate", url=of_user(own_server_url, "nobody"))

    (line,) = result.errors.splitlines()
    assert "permission denied for schema public" in line and "rolled back" in line


@pytest.mark.parametrize("grant", ["", "GRANT ALL ON ALL TABLES IN SCHEMA public TO"])
def test_a_user_from_whom_row_security_hides_the_tables_gets_an_error(
    grant: str, workers: Commands, own_server_url: str
) -> None:
    query(own_server_url, "CREATE ROLE guest LOGIN")
    make_tables(own_server_url)
    if grant:
        query(own_server_url, f"{grant} guest")

    for command in ("status", "migrate"):
        result = workers(command, url=of_user(own_server_url, "guest"))
        assert result.status == 1
        (line,) = result.errors.splitlines()
        assert "row level security hides billing_schema_version at " in line
        assert "from guest: connect as its owner postgres" in line
        assert "nothing applied" not in result.output and "rename" not in line


def test_a_user_who_may_not_read_the_tables_gets_an_error(
    workers: Commands, own_server_url: str
) -> None:
    query(own_server_url, "CREATE ROLE guest LOGIN BYPASSRLS")
    make_tables(own_server_url)
    guest = of_user(own_server_url, "guest")

    for command in ("status", "migrate"):
        result = workers(command, url=guest)
        assert result.status == 1
        (line,) = result.errors.splitlines()
        assert "permission denied for table billing_schema_version" in line
        assert "connect as the owner of the tables" in line


def test_a_user_who_may_not_build_an_index_gets_an_error(
    workers: Commands, own_server_url: str
) -> None:
    query(own_server_url, "CREATE ROLE guest LOGIN BYPASSRLS")
    make_tables(own_server_url)
    query(own_server_url, "GRANT ALL ON ALL TABLES IN SCHEMA public TO guest")
    query(own_server_url, "DROP INDEX billing_runtime_jobs_now")

    result = workers("migrate", url=of_user(own_server_url, "guest"))

    assert result.status == 1
    (line,) = result.errors.splitlines()
    assert "refused to build an index of billing_jobs at " in line
    assert "must be owner of table billing_jobs" in line
    assert "connect as the owner of the tables and run migrate again" in line


def misc_of_chancy(backend: Recorder, command: str, url: str) -> str:
    """The output of a command of Chancy's own command line."""
    create = "app.billing.workers.chancy_initialization.create_chancy"
    return run(
        *(sys.executable, "-m", "chancy.cli.cli", "--app", create, "misc", command),
        cwd=backend.folder,
        env=environment(WORKERS_DATABASE_URL=url),
    ).stdout


def test_chancy_s_own_command_line_works_from_the_backend_s_root(
    backend: Recorder, migrated_url: str
) -> None:
    printed = misc_of_chancy(backend, "check-migrations", migrated_url)

    assert "Chancy Core" in printed and "✗" not in printed


SUPABASE = """
    CREATE ROLE anon LOGIN;
    CREATE ROLE authenticated LOGIN;
    CREATE ROLE owner LOGIN;
    GRANT USAGE ON SCHEMA public TO anon, authenticated;
    GRANT USAGE, CREATE ON SCHEMA public TO owner;
    ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA public
        GRANT ALL ON TABLES TO anon, authenticated;
    ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA public
        GRANT ALL ON SEQUENCES TO anon, authenticated;
"""
INSERT = (
    "INSERT INTO billing_jobs (id, queue, func) "
    "VALUES (gen_random_uuid(), 'default', 'os.abort')"
)


def test_users_of_supabase_s_public_key_can_neither_read_nor_push(
    workers: Commands, backend: Recorder, tmp_path: Path, own_server_url: str
) -> None:
    query(own_server_url, SUPABASE)
    owner = of_user(own_server_url, "owner")
    public = [of_user(own_server_url, role) for role in ("anon", "authenticated")]

    # Chancy's own migration leaves them open; otherwise the rest would prove nothing.
    misc_of_chancy(backend, "migrate", owner)
    query(public[0], INSERT)
    query(own_server_url, "DELETE FROM billing_jobs")
    with backend.service(owner) as running:
        assert (
            "anon and authenticated of Supabase's public API can reach"
            in running.output
        )
        running.stop()
    assert workers("status", url=owner).status == 1

    workers("migrate", url=owner)
    # A later migration creates more tables.
    assert workers("status", url=owner, plugins=[Metrics()]).status == 1
    workers("migrate", url=owner, plugins=[Metrics()])

    with_metrics = backend.copy(tmp_path / "with_metrics")
    with_metrics.add_plugin("Metrics()", "from chancy.plugins.metrics import Metrics")
    with with_metrics.service(owner) as running:
        assert "public API" not in running.output
        for url in public:
            for table in list_tables(own_server_url):
                for statement in (
                    f"SELECT * FROM {table}",
                    f"DELETE FROM {table}",
                    f"TRUNCATE {table}",
                    f"INSERT INTO {table} DEFAULT VALUES",
                ):
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        query(url, statement)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                query(url, INSERT)
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                query(url, "SELECT nextval('billing_leader_id_seq')")
        running.run_job("record")
        running.stop()
    assert len(list_tables(own_server_url)) == 9
    assert query(
        own_server_url,
        "SELECT bool_and(rowsecurity) FROM pg_tables WHERE schemaname = 'public'",
    ) == [(True,)]


@job(queue="orders")
async def ship() -> None: ...


async def test_users_who_may_change_a_table_of_the_service_set_off_its_triggers(
    own_server_url: str,
) -> None:
    query(own_server_url, SUPABASE)
    owner = of_user(own_server_url, "owner")
    authenticated = of_user(own_server_url, "authenticated")
    async with plain_chancy(owner, plugins=[Trigger()]) as app:
        await migrate(app)
        query(owner, "CREATE TABLE orders (id int)")
        await Trigger.register_trigger(
            app,
            table_name="orders",
            operations=["INSERT", "UPDATE", "DELETE"],
            job_template=ship,
        )

    for change in (
        "INSERT INTO orders VALUES (1)",
        "UPDATE orders SET id = 2",
        "DELETE FROM orders",
    ):
        query(authenticated, change)

    pushed = query(
        owner, "SELECT func, meta->'trigger'->>'operation' FROM billing_jobs"
    )
    func = ship.job.func
    assert sorted(pushed) == [(func, "DELETE"), (func, "INSERT"), (func, "UPDATE")]
    for table in ("billing_jobs", "billing_triggers"):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            query(authenticated, f"SELECT * FROM {table}")
    # A temporary table of the user does not hide Chancy's table from the function.
    with psycopg.connect(authenticated) as connection:
        connection.execute("CREATE TEMP TABLE billing_jobs (id int)")
        connection.execute("INSERT INTO orders VALUES (3)")
    assert query(owner, "SELECT count(*) FROM billing_jobs") == [(4,)]


def test_a_user_from_whom_row_security_hides_the_tables_cannot_start(
    backend: Recorder, own_server_url: str
) -> None:
    query(own_server_url, "CREATE ROLE guest LOGIN")
    make_tables(own_server_url)
    query(own_server_url, "GRANT ALL ON ALL TABLES IN SCHEMA public TO guest")

    line = line_of_failed_start(backend, of_user(own_server_url, "guest"))

    assert "row level security hides billing_schema_version at " in line
    assert "connect as its owner postgres" in line


async def test_every_table_that_chancy_creates_is_known_by_name(
    database_url: str,
) -> None:
    app = plain_chancy(
        database_url,
        plugins=[
            *(Leadership(), Pruner(), Recovery(), Cron()),
            *(Metrics(), WorkflowPlugin()),
        ],
    )
    await migrate(app)

    async with await connect(database_url) as connection:
        known = tables_of(app, await parts_of(connection, app))

    assert sorted(known) == list_tables(database_url)
