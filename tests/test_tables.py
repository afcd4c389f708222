"""The tables are created by a command, closed to Supabase's public API, and kept apart."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from .support import (
    copy,
    database,
    environment,
    migrate,
    query,
    run,
    service,
    tables,
    url_of,
)

PACKAGE = "app.billing"


def workers(
    folder: Path, command: str, url: str, *, check: bool = True, package: str = PACKAGE
) -> subprocess.CompletedProcess[str]:
    """`python -m app.billing.workers COMMAND` on a database."""
    return run(
        *(sys.executable, "-m", f"{package}.workers", command),
        cwd=folder,
        env=environment(WORKERS_DATABASE_URL=url),
        check=check,
    )


def test_status_shows_the_target_and_what_is_due_until_it_is_migrated(
    backend: Path, database_url: str
) -> None:
    before = workers(backend, "status", database_url, check=False)
    assert before.returncode == 1
    assert "billing_* at /" in before.stdout
    assert "chancy: nothing applied, due: v1, v2" in before.stdout
    assert before.stdout.rstrip().endswith(f"run python -m {PACKAGE}.workers migrate")
    assert tables(database_url) == []

    assert "v8 applied" in workers(backend, "migrate", database_url).stdout

    after = workers(backend, "status", database_url)
    assert "due" not in after.stdout
    assert tables(database_url) == [
        "billing_cron",
        "billing_jobs",
        "billing_leader",
        "billing_queue_rate_limits",
        "billing_queues",
        "billing_schema_version",
        "billing_workers",
    ]


def test_the_password_is_never_shown(backend: Path) -> None:
    url = "postgresql://someone:hunter2@127.0.0.1:1/billing"

    for command in ("status", "migrate"):
        result = workers(backend, command, url, check=False)
        assert result.returncode == 1
        (line,) = result.stderr.splitlines()
        assert "127.0.0.1:1/billing" in line and "Connection refused" in line
        assert "hunter2" not in result.stdout + result.stderr


def test_two_at_once_and_one_more_are_harmless(
    backend: Path, database_url: str
) -> None:
    command = [sys.executable, "-m", f"{PACKAGE}.workers", "migrate"]
    processes = [
        subprocess.Popen(
            command,
            cwd=backend,
            env=environment(WORKERS_DATABASE_URL=database_url),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output

    workers(backend, "migrate", database_url)
    workers(backend, "status", database_url)


@pytest.mark.parametrize(
    ("table", "columns"),
    [("jobs", "mine text"), ("cron", "mine text"), ("schema_version", "mine text")],
)
def test_a_table_of_the_service_s_own_is_named_and_left_alone(
    table: str, columns: str, backend: Path, database_url: str
) -> None:
    query(database_url, f"CREATE TABLE billing_{table} ({columns})")

    result = workers(backend, "migrate", database_url, check=False)

    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert f"billing_{table} is there at " in line
    assert "not Chancy's" in line and "prefix" in line
    assert tables(database_url) == [f"billing_{table}"]


@pytest.mark.parametrize(
    "statement",
    ["VIEW billing_jobs AS SELECT 1 AS mine", "TYPE billing_jobs AS (mine text)"],
)
def test_a_name_that_something_else_has_is_not_called_a_table(
    statement: str, backend: Path, database_url: str
) -> None:
    query(database_url, f"CREATE {statement}")

    result = workers(backend, "migrate", database_url, check=False)

    (line,) = result.stderr.splitlines()
    assert "billing_jobs is there at " in line and "not Chancy's: rename it" in line
    assert "table" not in line


def test_a_table_that_a_migration_would_drop_is_left_alone(
    rendered: Callable[[str, dict[str, object]], Path], database_url: str
) -> None:
    folder = rendered("metrics", {"scope": "backend", "metrics": True})
    query(database_url, "CREATE TABLE billing_metrics (mine text)")
    query(database_url, "INSERT INTO billing_metrics VALUES ('kept')")

    result = workers(folder, "migrate", database_url, check=False)

    assert "is not Chancy's" in result.stderr
    assert query(database_url, "SELECT * FROM billing_metrics") == [("kept",)]


def test_a_user_who_may_create_nothing_is_told_so(
    backend: Path, own_server_url: str
) -> None:
    query(own_server_url, "CREATE ROLE nobody LOGIN")

    result = workers(
        backend, "migrate", url_of(own_server_url, "postgres", "nobody"), check=False
    )

    (line,) = result.stderr.splitlines()
    assert "permission denied for schema public" in line and "rolled back" in line


@pytest.mark.parametrize("grant", ["", "GRANT ALL ON ALL TABLES IN SCHEMA public TO"])
def test_a_user_from_whom_row_security_hides_the_tables_is_told_so(
    grant: str, backend: Path, own_server_url: str
) -> None:
    query(own_server_url, "CREATE ROLE guest LOGIN")
    migrate(backend, PACKAGE, own_server_url)
    if grant:
        query(own_server_url, f"{grant} guest")

    for command in ("status", "migrate"):
        result = workers(
            backend, command, url_of(own_server_url, "postgres", "guest"), check=False
        )
        assert result.returncode == 1
        (line,) = result.stderr.splitlines()
        assert "row level security hides billing_schema_version at " in line
        assert "from guest: connect as its owner postgres" in line
        assert "nothing applied" not in result.stdout and "rename" not in line


def test_a_user_who_may_not_read_the_tables_is_told_so(
    backend: Path, own_server_url: str
) -> None:
    query(own_server_url, "CREATE ROLE guest LOGIN BYPASSRLS")
    migrate(backend, PACKAGE, own_server_url)
    guest = url_of(own_server_url, "postgres", "guest")

    for command in ("status", "migrate"):
        result = workers(backend, command, guest, check=False)
        assert result.returncode == 1
        (line,) = result.stderr.splitlines()
        assert "permission denied for table billing_schema_version" in line
        assert "connect as the owner of the tables" in line


def test_chancy_s_own_command_line_works_from_the_backend_s_root(
    backend: Path, database_url: str
) -> None:
    workers(backend, "migrate", database_url)

    result = run(
        *(sys.executable, "-m", "chancy.cli.cli", "--app"),
        *(
            f"{PACKAGE}.workers.chancy_initialization.create_chancy",
            "misc",
            "check-migrations",
        ),
        cwd=backend,
        env=environment(WORKERS_DATABASE_URL=database_url),
    )

    assert "Chancy Core" in result.stdout and "✗" not in result.stdout


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


def test_who_has_supabase_s_public_key_can_neither_read_nor_push(
    backend: Path,
    rendered: Callable[[str, dict[str, object]], Path],
    own_server_url: str,
) -> None:
    query(own_server_url, SUPABASE)
    owner = url_of(own_server_url, "postgres", "owner")
    public = [
        url_of(own_server_url, "postgres", role) for role in ("anon", "authenticated")
    ]

    # Chancy's own migration leaves them open: without this the rest would prove nothing.
    run(
        *(sys.executable, "-m", "chancy.cli.cli", "--app"),
        *(f"{PACKAGE}.workers.chancy_initialization.create_chancy", "misc", "migrate"),
        cwd=backend,
        env=environment(WORKERS_DATABASE_URL=owner),
    )
    query(public[0], INSERT)
    query(own_server_url, "DELETE FROM billing_jobs")
    with service(
        backend, f"{PACKAGE}.main:app", {"WORKERS_DATABASE_URL": owner}
    ) as running:
        assert (
            "anon and authenticated of Supabase's public API can reach"
            in running.output
        )
        running.stop()
    assert workers(backend, "status", owner, check=False).returncode == 1

    workers(backend, "migrate", owner)
    # A later migration brings tables of its own.
    with_metrics = rendered("metrics", {"scope": "backend", "metrics": True})
    assert workers(with_metrics, "status", owner, check=False).returncode == 1
    workers(with_metrics, "migrate", owner)

    with service(
        with_metrics, f"{PACKAGE}.main:app", {"WORKERS_DATABASE_URL": owner}
    ) as running:
        assert "public API" not in running.output
        for url in public:
            for table in tables(own_server_url):
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
        running.run_job("send_digest")
        running.stop()
    assert len(tables(own_server_url)) == 9
    assert query(
        own_server_url,
        "SELECT bool_and(rowsecurity) FROM pg_tables WHERE schemaname = 'public'",
    ) == [(True,)]


def test_a_user_from_whom_row_security_hides_the_tables_cannot_start(
    backend: Path, own_server_url: str
) -> None:
    query(own_server_url, "CREATE ROLE guest LOGIN")
    migrate(backend, PACKAGE, own_server_url)
    query(own_server_url, "GRANT ALL ON ALL TABLES IN SCHEMA public TO guest")

    guest = url_of(own_server_url, "postgres", "guest")
    with service(
        backend, f"{PACKAGE}.main:app", {"WORKERS_DATABASE_URL": guest}, wait=False
    ) as running:
        assert running.process.wait(15) == 3

    assert "row level security hides billing_schema_version at " in running.output
    assert "connect as its owner postgres" in running.output


def test_two_services_share_a_database_and_nothing_in_it(
    tmp_path: Path, server_url: str
) -> None:
    root = tmp_path / "backend"
    copy(root, "-d", "scope=backend", cwd=tmp_path)
    copy("app/shipping", cwd=root)
    with database(server_url) as url:
        workers(root, "migrate", url)
        of_billing = set(tables(url))
        workers(root, "migrate", url, package="app.shipping")
        of_shipping = set(tables(url)) - of_billing
        assert {name.removeprefix("billing_") for name in of_billing} == {
            name.removeprefix("shipping_") for name in of_shipping
        }
        with (
            service(
                root, "app.billing.main:app", {"WORKERS_DATABASE_URL": url}
            ) as billing,
            service(
                root, "app.shipping.main:app", {"WORKERS_DATABASE_URL": url}
            ) as shipping,
            psycopg.connect(url, autocommit=True) as listener,
        ):
            listener.execute("LISTEN billing_events")
            listener.execute("LISTEN shipping_events")
            id = billing.run_job("send_digest")
            channels = {
                notify.channel
                for notify in listener.notifies(timeout=1)
                if '"queue.pushed"' in notify.payload
            }
            assert channels == {"billing_events"}
            assert query(url, "SELECT id::text FROM billing_jobs") == [(id,)]
            assert query(url, "SELECT * FROM shipping_jobs") == []

            query(url, "UPDATE billing_queues SET state = 'paused'")
            query(url, "UPDATE billing_cron SET cron = '0 0 1 1 *'")
            shipping.run_job("send_digest")

            billing.stop()
            shipping.stop()
        assert query(url, "SELECT state FROM shipping_queues") == [("active",)]
        assert query(url, "SELECT cron FROM shipping_cron") == [("0 7 * * mon-fri",)]
        (billing_worker,), (shipping_worker,) = (
            query(url, f"SELECT DISTINCT taken_by FROM {prefix}_jobs")
            for prefix in ("billing", "shipping")
        )
        assert billing_worker != shipping_worker
        assert "shipping" not in billing.output and "billing" not in shipping.output


def test_every_table_that_chancy_creates_is_known_by_name(
    rendered: Callable[[str, dict[str, object]], Path], database_url: str
) -> None:
    folder = rendered(
        "plugins", {"scope": "backend", "metrics": True, "workflow": True}
    )
    workers(folder, "migrate", database_url)
    program = """
import asyncio
from app.billing.workers.chancy_database import connect
from app.billing.workers.chancy_initialization import create_chancy
from app.billing.workers.chancy_tables import parts_of, tables_of

async def main():
    chancy = create_chancy()
    async with await connect(chancy.dsn) as connection:
        print(*sorted(tables_of(chancy, await parts_of(connection, chancy))))

asyncio.run(main())
"""
    known = run(
        *(sys.executable, "-c", program),
        cwd=folder,
        env=environment(WORKERS_DATABASE_URL=database_url),
    )

    assert known.stdout.split() == tables(database_url)
