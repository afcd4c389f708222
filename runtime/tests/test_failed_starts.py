"""A problem with the database ends the start with one line within 15 s."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from uuid import uuid4

import psycopg
import pytest

from harness.databases import query
from harness.recorder import Recorder, migrated_cluster
from harness.servers import Cluster, free_port, proxy
from harness.starts import (
    PASSWORD,
    FailedStart,
    line_of_failed_start,
    lock,
    wait_for_lock,
)

pytestmark = pytest.mark.xdist_group("failed-starts")


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    with migrated_cluster("max_connections = 40") as running:
        yield running


@pytest.fixture
def role(server: Cluster) -> str:
    """A role that is not a superuser."""
    name = f"role_{uuid4().hex}"
    query(server.url(), f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    return name


@pytest.fixture
def owner(url: str, role: str) -> str:
    """The URL for a role that owns the database and its tables but is not a superuser."""
    query(url, f'ALTER DATABASE "{url.rpartition("/")[2]}" OWNER TO {role}')
    for (table,) in query(
        url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    ):
        query(url, f"ALTER TABLE {table} OWNER TO {role}")
    return url.replace("postgres@", f"{role}:{PASSWORD}@")


@contextmanager
def password_required(server: Cluster, role: str) -> Iterator[None]:
    """The server asks for the password of this role."""
    access = server.data / "pg_hba.conf"
    before = access.read_text()
    access.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n{before}")
    query(server.url(), "SELECT pg_reload_conf()")
    yield
    access.write_text(before)
    query(server.url(), "SELECT pg_reload_conf()")


# --- the database is not there ------------------------------------------------------------


def test_the_database_is_down(backend: Recorder) -> None:
    port = free_port()
    line = line_of_failed_start(
        backend, f"postgresql://u:{PASSWORD}@127.0.0.1:{port}/billing"
    )

    assert f"cannot connect to the database at 127.0.0.1:{port}/billing (" in line
    assert "Connection refused" in line
    assert line.endswith(
        "start it, or point WORKERS_DATABASE_URL at a server that answers"
    )


def test_the_password_is_wrong(server: Cluster, role: str, backend: Recorder) -> None:
    query(server.url(), f"ALTER ROLE {role} PASSWORD 'another'")
    with password_required(server, role):
        line = line_of_failed_start(
            backend,
            f"postgresql://{role}:{PASSWORD}@127.0.0.1:{server.port}/postgres",
        )

    assert f"127.0.0.1:{server.port}/postgres" in line
    assert f'FATAL: password authentication failed for user "{role}"' in line
    assert "correct the user and the password in the URL" in line


def test_the_user_does_not_exist(server: Cluster, backend: Recorder) -> None:
    line = line_of_failed_start(backend, server.url(user="nobody"))

    assert 'FATAL: role "nobody" does not exist' in line
    assert "correct the user and the password in the URL" in line


@pytest.mark.parametrize("host", ["host.invalid", "host..invalid"])
def test_the_host_is_wrong(host: str, backend: Recorder) -> None:
    line = line_of_failed_start(
        backend, f"postgresql://someone:{PASSWORD}@{host}:5433/billing"
    )

    assert f"{host}:5433/billing (" in line
    assert line.endswith("correct the host in the URL")


def test_several_hosts_that_are_down_are_one_line(backend: Recorder) -> None:
    ports = [free_port(), free_port()]
    line = line_of_failed_start(
        backend,
        f"postgresql://u:{PASSWORD}@127.0.0.1:{ports[0]},localhost:{ports[1]}/billing",
    )

    assert all(f"port {port} failed: Connection refused" in line for port in ports)


def test_the_database_is_unknown(server: Cluster, backend: Recorder) -> None:
    line = line_of_failed_start(backend, server.url("nowhere"))

    assert f"127.0.0.1:{server.port}/nowhere (" in line
    assert 'FATAL: database "nowhere" does not exist' in line
    assert line.endswith("create it with createdb, or correct its name in the URL")


def test_the_tables_are_missing(server: Cluster, backend: Recorder) -> None:
    query(server.url(), "CREATE DATABASE empty TEMPLATE template0")
    line = line_of_failed_start(backend, server.url("empty"))

    assert "the tables billing_* at 127.0.0.1" in line and "missing or too old" in line
    assert line.endswith("run python -m app.billing.workers migrate")


def test_the_server_is_read_only(server: Cluster, url: str, backend: Recorder) -> None:
    with server.read_only():
        line = line_of_failed_start(backend, url)

    assert "read-only transaction" in line
    assert line.endswith("point the URL at the primary, or end its read-only mode")


def test_the_user_may_not_write(
    server: Cluster, url: str, role: str, backend: Recorder
) -> None:
    query(url, f"ALTER ROLE {role} BYPASSRLS")
    query(url, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    line = line_of_failed_start(backend, url.replace("postgres@", f"{role}@"))

    assert "permission denied for table billing_workers" in line
    assert (
        "connect as the owner of the tables, or as a role with the rights that migrate"
        in line
    )


# --- the database is silent ---------------------------------------------------------------


@contextmanager
def silent_server() -> Iterator[int]:
    """A server that accepts connections and never answers; yields its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def test_the_server_accepts_and_never_answers(backend: Recorder) -> None:
    with silent_server() as port:
        line = line_of_failed_start(
            backend, f"postgresql://u:{PASSWORD}@127.0.0.1:{port}/billing"
        )

    assert f"127.0.0.1:{port}/billing (connection timeout expired)" in line


def test_the_server_goes_silent_after_the_login(
    server: Cluster, url: str, backend: Recorder
) -> None:
    with (
        proxy(server.port) as silent,
        ExitStack() as locks,
        FailedStart(backend, url.replace(str(server.port), str(silent.port))) as start,
    ):
        locks.enter_context(lock(url, "LOCK TABLE billing_schema_version"))
        wait_for_lock(url)
        silent.stall()
        locks.close()

    assert f"127.0.0.1:{silent.port}/" in start.line
    assert "no answer in the 11 s" in start.line


def test_sigterm_ends_a_start_that_waits(backend: Recorder) -> None:
    """uvicorn waits for the end of the start, which connect_timeout limits to 5 s."""
    with silent_server() as port:
        start = FailedStart(backend, f"postgresql://u@127.0.0.1:{port}/d")
        with start:
            start.running.process.terminate()

    assert "connection timeout expired" in start.line


# --- the database has too few connections -------------------------------------------------


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        (0, "cannot connect to the database at"),
        (1, "cannot connect to the database at"),
        (2, "did not give the 5 connections of CHANCY_MIN_POOL_SIZE"),
        (5, "has no connection left for LISTEN"),
    ],
)
def test_the_role_has_too_few_connections(
    limit: int, reason: str, owner: str, role: str, server: Cluster, backend: Recorder
) -> None:
    query(server.url(), f"ALTER ROLE {role} CONNECTION LIMIT {limit}")
    line = line_of_failed_start(backend, owner)

    assert reason in line and f"127.0.0.1:{server.port}/" in line
    assert f'FATAL: too many connections for role "{role}"' in line
    assert "limit" in line.rpartition(": ")[2]


def test_as_many_connections_as_the_pool_and_listen_are_enough(
    owner: str, role: str, server: Cluster, backend: Recorder
) -> None:
    query(server.url(), f"ALTER ROLE {role} CONNECTION LIMIT 6")
    with backend.service(owner) as running:
        running.run_job("record")
        running.stop()

    assert "too many connections" not in running.output


def test_the_server_has_no_connection_left(
    owner: str, server: Cluster, backend: Recorder
) -> None:
    with ExitStack() as others:
        with pytest.raises(psycopg.OperationalError):
            while True:
                others.enter_context(psycopg.connect(owner))
        line = line_of_failed_start(backend, owner)

    assert "FATAL: " in line and "connection slots" in line
    assert "end other connections, or raise the limit (max_connections" in line


# --- the database goes away between the checks and the end of the start -------------------

LATE = {
    "declares queues": "LOCK TABLE billing_schema_version IN SHARE MODE",
    "schedules cron jobs": "LOCK TABLE billing_cron IN SHARE MODE",
    "announces the worker": "SELECT * FROM billing_workers FOR UPDATE",
}


@pytest.fixture
def with_expired_worker(url: str) -> str:
    """A row that the first heartbeat deletes; it waits while the row is locked."""
    query(
        url,
        "INSERT INTO billing_workers (worker_id, tags, queues, last_seen, expires_at) "
        "VALUES ('gone', '{}', '{}', now() - interval '1 h', now() - interval '1 h')",
    )
    return url


@pytest.mark.parametrize("statement", LATE.values(), ids=LATE)
def test_the_connection_is_lost_while_the_service(
    statement: str, with_expired_worker: str, server: Cluster, backend: Recorder
) -> None:
    url = with_expired_worker
    with lock(url, statement), FailedStart(backend, url) as start:
        wait_for_lock(url)
        query(
            url,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE wait_event_type = 'Lock' AND datname = current_database()",
        )

    assert f"cannot start on the database 127.0.0.1:{server.port}/" in start.line


@pytest.mark.parametrize("moment", ["schedules cron jobs", "announces the worker"])
def test_the_database_is_silent_while_the_service(
    moment: str, with_expired_worker: str, server: Cluster, backend: Recorder
) -> None:
    url = with_expired_worker
    with (
        proxy(server.port) as silent,
        lock(url, LATE[moment]),
        FailedStart(
            backend,
            url.replace(str(server.port), str(silent.port)),
            # psycopg's warning for a transaction that cannot be rolled back.
            routine=("WARNING psycopg: error ignored in rollback",),
        ) as start,
    ):
        wait_for_lock(url)
        silent.stall()

    assert f"cannot start on the database 127.0.0.1:{silent.port}/" in start.line
    assert "no answer in the 11 s of a start" in start.line
