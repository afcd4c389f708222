"""A transaction pooler is refused, a session pooler is not; too many connections are logged."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest
from chancy_runtime import Settings, WorkersError, check_database
from chancy_runtime.postgres.pooler import warn_about_connections

from harness.commands import wait_for
from harness.probes import readiness, wait_until_ready
from harness.recorder import Recorder, make_tables, plain_chancy, recorder
from harness.servers import Cluster, cluster, pgbouncer
from harness.starts import PASSWORD, line_of_failed_start

pytestmark = pytest.mark.xdist_group("pooler")

SESSION_POOLER = "postgresql://postgres.<project>:<password>@<name>.pooler.supabase.com:5432/postgres"
# No connection of this file may leave the machine, whatever host is in the URL.
NOWHERE = "hostaddr=127.0.0.1"


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    with cluster() as running:
        make_tables(running.url())
        yield running


# --- refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hosts",
    [
        "aws-0-eu-west-1.pooler.supabase.com:6543",
        "AWS-0-EU-WEST-1.POOLER.SUPABASE.COM.:6543",
        "127.0.0.1:1,aws-0-eu-west-1.pooler.supabase.com:6543",
    ],
)
def test_the_transaction_port_of_supabase_is_refused_before_anything_connects(
    hosts: str, backend: Recorder
) -> None:
    address = ",".join([NOWHERE, "127.0.0.1"]) if "," in hosts else NOWHERE
    line = line_of_failed_start(
        backend,
        f"postgresql://postgres.abc:{PASSWORD}@{hosts}/postgres?{address}",
    )

    assert (
        "is Supabase's transaction pooler, on which workers die within seconds" in line
    )
    assert line.endswith(f"use the session pooler, {SESSION_POOLER}")


@contextmanager
def traffic(url: str) -> Iterator[None]:
    """Short transactions of other clients, as long as the block runs."""
    stop = threading.Event()

    def client() -> None:
        with psycopg.connect(
            url, autocommit=True, prepare_threshold=None
        ) as connection:
            while not stop.wait(0.002):
                connection.execute("SELECT 1")

    clients = [threading.Thread(target=client) for _ in range(3)]
    for thread in clients:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in clients:
            thread.join()


def answers(*urls: str) -> list[str]:
    """The result of check_database() for each URL; all checks run at the same time."""

    async def check(url: str) -> str:
        try:
            await check_database(plain_chancy(url))
        except WorkersError as error:
            return str(error)
        return "accepted"

    async def check_all() -> list[str]:
        return await asyncio.gather(*map(check, urls))

    return asyncio.run(check_all())


@pytest.mark.parametrize("busy", [False, True])
def test_any_other_transaction_pooler_is_recognized_by_its_behaviour(
    busy: bool, server: Cluster
) -> None:
    with ExitStack() as poolers:
        urls = []
        for mode in ("transaction", "statement"):
            for size in (1, 2, 20):
                pooler = poolers.enter_context(
                    pgbouncer(
                        server,
                        pool_mode=mode,
                        default_pool_size=size,
                    )
                )
                urls.append(pooler.url())
                if busy:
                    poolers.enter_context(traffic(pooler.url()))
        results = answers(*urls)

    assert len(results) == len(urls)
    for line in results:
        assert (
            "does not deliver notifications, so it is probably a transaction pooler"
            in line
        )
        assert f"PgBouncer: pool_mode = session; Supabase: {SESSION_POOLER}" in line


def test_a_start_on_a_transaction_pooler_ends_with_one_line(
    server: Cluster, backend: Recorder
) -> None:
    with pgbouncer(server, pool_mode="transaction") as pooler:
        line = line_of_failed_start(backend, pooler.url())

    assert f"127.0.0.1:{pooler.port}/postgres does not deliver notifications" in line
    assert "use a session pooler" in line


def test_a_service_that_starts_without_its_database_joins_a_pooler_that_keeps_sessions(
    server: Cluster, tmp_path: Path
) -> None:
    backend = recorder(tmp_path / "backend", without_database=True)
    with (
        pgbouncer(server, pool_mode="transaction") as pooler,
        backend.service(pooler.url()) as running,
    ):
        wait_for(
            lambda: "does not deliver notifications" in running.output,
            what="the refusal",
        )
        problems = {"status": "not ready", "problems": ["the workers have not started"]}
        assert readiness(running) == (503, problems)
        pooler.stop()
        pooler.set(pool_mode="session")
        pooler.start()
        wait_until_ready(running)
        running.stop()


# --- accepted -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [6, 20])
def test_a_session_pooler_is_accepted_with_room_for_the_pool_and_listen(
    size: int, server: Cluster, backend: Recorder
) -> None:
    with (
        pgbouncer(server, default_pool_size=size) as pooler,
        backend.service(pooler.url()) as running,
    ):
        running.run_job("record")
        running.stop()


def test_the_check_is_never_wrong_about_sessions(
    server: Cluster,
) -> None:
    with pgbouncer(server, default_pool_size=100) as pooler:
        urls = [server.url(), pooler.url()] * 2
        with traffic(pooler.url()):
            # One after the other: at the same time, they would delay each other.
            results = [line for _ in range(10) for line in answers(*urls)]

    assert results == ["accepted"] * 40


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        (2, "did not give the 5 connections of CHANCY_MIN_POOL_SIZE"),
        (5, "has no connection left for LISTEN"),
    ],
)
def test_a_session_pooler_that_is_too_small_is_named(
    size: int, reason: str, server: Cluster, backend: Recorder
) -> None:
    with pgbouncer(server, default_pool_size=size) as pooler:
        line = line_of_failed_start(backend, pooler.url())

    assert f"127.0.0.1:{pooler.port}/postgres {reason}" in line
    assert "pooler's pool size" in line


# --- warned -------------------------------------------------------------------------------


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[..., list[str]]:
    """The warnings for a process with a number of Workers; nothing connects."""

    def see(url: str, settings: Settings | None = None, workers: int = 1) -> list[str]:
        warn_about_connections(
            url,
            settings or Settings(),
            pool=10,
            workers=workers,
            log=logging.getLogger("test"),
        )
        assert PASSWORD not in caplog.text
        assert {record.levelname for record in caplog.records} <= {"WARNING"}
        return [record.getMessage() for record in caplog.records]

    return see


POOLER = (
    f"postgresql://postgres.abc:{PASSWORD}@aws-0-eu.pooler.supabase.com:5432/postgres"
)


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("db.abcdef.supabase.co", "db.abcdef.supabase.co:5432/postgres"),
        ("DB.ABCDEF.SUPABASE.CO.", "DB.ABCDEF.SUPABASE.CO.:5432/postgres"),
    ],
)
def test_a_direct_host_of_supabase_gets_a_warning(
    host: str, named: str, warnings: Callable[..., list[str]]
) -> None:
    assert warnings(f"postgresql://postgres:{PASSWORD}@{host}/postgres") == [
        f"{named} is Supabase's direct host, which has only IPv6 unless the "
        "project pays for IPv4: if the workers cannot use IPv6, use the session pooler, "
        f"{SESSION_POOLER}"
    ]


@pytest.mark.parametrize(
    ("settings", "workers", "total"),
    [
        (
            Settings(replicas=2),
            1,
            "2 replicas × (10 pool connections + 1 for LISTEN) are 22",
        ),
        (
            Settings(replicas=3),
            2,
            "3 replicas × (10 pool connections + 2 for LISTEN) are 36",
        ),
    ],
)
def test_more_connections_than_the_pooler_has_are_warned_of_with_the_sum(
    settings: Settings,
    workers: int,
    total: str,
    warnings: Callable[..., list[str]],
) -> None:
    assert warnings(POOLER, settings, workers) == [
        f"{total} connections, but the pooler has 15: raise its pool size and the "
        "setting pooler_connections, or lower CHANCY_MAX_POOL_SIZE"
    ]


@pytest.mark.parametrize(
    ("url", "settings"),
    [
        (POOLER, Settings()),
        (POOLER, Settings(replicas=2, pooler_connections=22)),
        ("postgresql://u@db.example.com/d", Settings(replicas=50)),
        ("postgresql:///d?host=/var/run/postgresql", Settings(replicas=50)),
        (
            "postgresql://u@h1:5432,h2:5433/d?target_session_attrs=read-write",
            Settings(),
        ),
        ("service=billing", Settings()),
        ("postgresql://u@localhost/d?options=-c%20search_path%3Dx", Settings()),
    ],
)
def test_there_is_no_warning_if_the_connections_fit_or_are_unknown(
    url: str, settings: Settings, warnings: Callable[..., list[str]]
) -> None:
    assert warnings(url, settings) == []
