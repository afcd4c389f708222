"""Killed connections, a database that is down or read-only, a pooler that restarts."""

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from harness.commands import wait_for
from harness.databases import query
from harness.probes import readiness, wait_until_ready
from harness.recorder import Recorder, make_tables, push, recorder, states
from harness.sentry import sentry
from harness.servers import Cluster, cluster, pgbouncer, proxy
from harness.services import Service, alarms

pytestmark = pytest.mark.xdist_group("outages")

# Patterns for the queries of polls, as the server shows them.
POLLS = {
    "Cron": 'FROM "billing_cron"',
    "Leadership": 'INSERT INTO "billing_leader"',
    "Pruner": "WITH pruned",
    "Recovery": "WITH lost",
    "heartbeat": 'DELETE FROM "billing_workers"',
}
KILL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)
QUEUE_POLL = {"queue_default": "WITH RECURSIVE priorities"}
# One poll and the longest pause after an outage, on a loaded machine.


@pytest.fixture(scope="module")
def of_all_tests(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    """A service that learns of jobs only by notifications."""
    return recorder(
        tmp_path_factory.mktemp("outages") / "backend",
        cron="0 0 1 1 *",
        QUEUES='[Queue("default", executor=Chancy.Executor.Async, concurrency=100, '
        "eager_polling=True, polling_interval=600)]",
    )


@pytest.fixture
def billing(of_all_tests: Recorder, tmp_path: Path) -> Recorder:
    return of_all_tests.copy(tmp_path / "backend")


@contextmanager
def watched(running: Service) -> Iterator[None]:
    """Requests /health/live all the time; the service must answer each request."""
    stopped, failures = threading.Event(), list[str]()

    def watch() -> None:
        while not stopped.wait(0.1):
            try:
                running.request("/health/live")
            except (OSError, json.JSONDecodeError) as error:
                failures.append(f"{time.ctime()}: {error!r}")

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
    assert failures == [], running.output
    assert running.process.poll() is None


@contextmanager
def serving(billing: Recorder, url: str, dsn: str = "") -> Iterator[Service]:
    """The ready service, which answers each request until it stops cleanly."""
    variables = {"SENTRY_DSN": dsn} if dsn else {}
    with billing.service(url, variables=variables) as running:
        wait_until_ready(running)
        with watched(running):
            yield running
        running.stop()


def lines(running: Service, *texts: str) -> list[str]:
    """The lines of the log, of any logger, that hold one of the texts."""
    return [
        line
        for line in running.output.splitlines()
        if any(text in line for text in texts)
    ]


def everything_goes_on(url: str, billing: Recorder, running: Service) -> None:
    """Sees jobs, notifications, cron, leadership, pruning and recovery work."""
    mark = uuid4().hex[:8]
    crons = billing.executions["cron"]
    ((lease,),) = query(url, "SELECT max(expires_at) FROM billing_leader")
    query(url, "UPDATE billing_cron SET next_run = NOW() - INTERVAL '1 second'")
    yesterday = datetime.now(tz=UTC) - timedelta(days=2)
    old = push(url, f"old-{mark}", state="succeeded", created_at=yesterday)
    orphan = push(
        url,
        f"orphan-{mark}",
        state="running",
        taken_by="nobody",
        claim_id=str(uuid4()),
    )
    ids = [push(url, f"{mark}-{number}") for number in range(5)]

    def all_done() -> bool:
        rows = query(
            url,
            "SELECT count(*) FROM billing_jobs WHERE id = ANY(%s::uuid[]) "
            "AND state = 'succeeded'",
            [orphan, *ids],
        )
        return (
            rows == [(6,)]
            and billing.executions["cron"] == crons + 1
            and not query(url, "SELECT 1 FROM billing_jobs WHERE id = %s", old)
            and bool(
                query(
                    url,
                    "SELECT 1 FROM billing_leader WHERE expires_at > "
                    "COALESCE(%s, NOW() - INTERVAL '1 day')",
                    lease,
                )
            )
        )

    wait_for(all_done, what=f"work as usual\n{running.output}")
    push_started(url, billing)


def wait_for_success(url: str, id: str) -> None:
    wait_for(
        lambda: query(
            url,
            "SELECT 1 FROM billing_jobs WHERE id = %s AND state = 'succeeded'",
            id,
        ),
        what="the success of a job",
    )


def push_started(url: str, billing: Recorder, seconds: float = 0) -> str:
    """Pushes a job that starts at once although the next poll is minutes away; its id."""
    note = uuid4().hex[:8]
    id = push(url, note, seconds=seconds)
    wait_for(lambda: billing.executions[note], what="a notified start")
    return id


def nothing_was_lost_or_done_twice(url: str, billing: Recorder) -> None:
    wait_for(
        lambda: set(states(url)) == {"succeeded"},
        what=f"the end of all jobs ({states(url)})",
    )
    assert set(Counter(query(url, "SELECT attempts FROM billing_jobs"))) == {(1,)}
    executions = billing.executions
    del executions["cron"]
    assert set(executions.values()) == {1}, executions


def kill(url: str) -> None:
    """Kills all connections of the service."""
    query(url, KILL)


@contextmanager
def in_the_middle(
    url: str, polls: dict[str, str]
) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
    """A moment at which each poll waits for an answer of the server."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "LOCK billing_cron, billing_leader, billing_jobs, billing_workers"
        )

        def all_wait() -> bool:
            rows = query(
                url,
                "SELECT query FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                "AND datname = current_database()",
            )
            return all(any(text in row for (row,) in rows) for text in polls.values())

        if "queue_default" in polls:
            query(
                url,
                """NOTIFY billing_events, '{"t": "queue.pushed", "q": "default"}'""",
            )
        wait_for(all_wait, what="a poll of each plugin")
        yield connection


@pytest.mark.parametrize("pause", [0, pytest.param(10, marks=pytest.mark.slow)])
def test_connections_killed_in_the_middle_of_polls(
    pause: float, server: Cluster, billing: Recorder, url: str
) -> None:
    with (
        sentry() as (dsn, events),
        serving(billing, url, dsn) as running,
    ):
        everything_goes_on(url, billing, running)
        for polls in (POLLS, POLLS | QUEUE_POLL, POLLS | QUEUE_POLL):
            running.request("/")
            long = push_started(url, billing, seconds=5)
            with in_the_middle(url, polls) as connection:
                connection.execute(KILL)
            assert running.request("/")["service"] == "billing"
            everything_goes_on(url, billing, running)
            wait_until_ready(running)
            wait_for_success(url, long)
            time.sleep(pause)
        nothing_was_lost_or_done_twice(url, billing)
        for task, least in [("queue_default", 2), *((task, 3) for task in POLLS)]:
            assert len(lines(running, f"{task} lost its connection")) >= least, task
        assert not lines(running, "ERROR", "Traceback", "never retrieved")
    assert events == []


@pytest.mark.parametrize("process", ["api", "own"])
def test_connections_killed_at_any_moment(
    process: str, billing: Recorder, url: str
) -> None:
    billing.process = process
    with serving(billing, url) as running:
        ids: list[str] = []
        deadline = time.monotonic() + 8
        while time.monotonic() < deadline:
            ids.append(push(url, f"job-{len(ids)}", seconds=len(ids) % 3))
            kill(url)
            time.sleep(0.05)
        everything_goes_on(url, billing, running)
        nothing_was_lost_or_done_twice(url, billing)


def test_a_job_pushed_while_nobody_listens_starts_when_they_listen_again(
    billing: Recorder, url: str
) -> None:
    with serving(billing, url):
        query(url, f"{KILL} AND query LIKE 'LISTEN%'")
        push_started(url, billing)


def test_a_claim_whose_answer_was_lost(
    server: Cluster, billing: Recorder, url: str
) -> None:
    """The server commits, and the connection dies before its answer arrives."""

    def kill_at_commit(note: str) -> str:
        with server.setting("synchronous_standby_names", "nobody"):
            local = f"{url}?options=-csynchronous_commit%3Dlocal"
            id = push(local, note)

            def committing() -> bool:
                return bool(
                    query(
                        local,
                        "SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep' "
                        "AND datname = current_database()",
                    )
                ) and not query(
                    local,
                    "SELECT 1 FROM billing_jobs WHERE id = %s FOR UPDATE SKIP LOCKED",
                    id,
                )

            wait_for(committing, what="the commit of a claim")
            kill(local)
            return id

    with serving(billing, url):
        for round in range(3):
            id = kill_at_commit(f"lost-{round}")
            wait_for_success(url, id)
        nothing_was_lost_or_done_twice(url, billing)


def test_a_worker_whose_heartbeats_do_not_arrive_keeps_its_own_jobs(
    billing: Recorder, url: str
) -> None:
    with serving(billing, url) as running:
        query(
            url,
            "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS "
            "'BEGIN RETURN NULL; END'",
        )
        query(
            url,
            "CREATE TRIGGER lose BEFORE INSERT OR UPDATE ON billing_workers "
            "FOR EACH ROW EXECUTE FUNCTION lose()",
        )
        query(url, "DELETE FROM billing_workers")
        long = push_started(url, billing, seconds=8)
        # Recovery runs at the same time, and takes jobs of lost workers.
        everything_goes_on(url, billing, running)
        wait_for_success(url, long)
        nothing_was_lost_or_done_twice(url, billing)


@pytest.mark.xdist_group("outages-gone")
@pytest.mark.parametrize(
    ("kind", "seconds", "process"),
    [
        ("down", 20, "api"),
        ("read-only", 10, "api"),
        ("down", 5, "own"),
        pytest.param("down", 300, "api", marks=pytest.mark.slow),
    ],
)
def test_a_database_that_is_gone_for_a_while(
    kind: str, seconds: float, process: str, billing: Recorder
) -> None:
    billing.process = process
    with (
        cluster() as server,
        sentry() as (dsn, events),
    ):
        url = server.url()
        make_tables(url)
        with serving(billing, url, dsn) as running:
            everything_goes_on(url, billing, running)
            push_started(url, billing, seconds=5)
            with gone(server, kind):
                since = time.monotonic()
                wait_for(
                    lambda: readiness(running)[0] == 503,
                    what="the unreadiness",
                )
                time.sleep(max(0, seconds - (time.monotonic() - since)))
                assert len(alarms(running)) == 1, "\n".join(alarms(running))
            wait_until_ready(running)
            everything_goes_on(url, billing, running)
            nothing_was_lost_or_done_twice(url, billing)
            went, came = alarms(running)
            assert f"127.0.0.1:{server.port}/postgres is gone (" in went
            assert f"127.0.0.1:{server.port}/postgres is back" in came
    (event,) = events
    assert event["tags"] == event["tags"] | {
        "service": "billing",
        "chancy.task": "database",
    }


@contextmanager
def gone(server: Cluster, kind: str) -> Iterator[None]:
    """A server that crashed, or one that failed over to a standby not yet promoted."""
    if kind == "down":
        server.stop()
        yield
        server.start()
    else:
        with server.read_only():
            server.kill_connections()
            yield


def test_a_database_that_takes_no_writes_is_named_by_the_probe(
    server: Cluster, billing: Recorder, url: str
) -> None:
    with serving(billing, url) as running:
        with server.read_only():
            wait_for(lambda: readiness(running)[0] == 503, what="the unreadiness")
            seen = readiness(running)[1]["problems"]
        wait_until_ready(running)
    assert "the database does not take writes" in seen


@pytest.mark.xdist_group("outages-between")
def test_a_pooler_in_session_mode_that_restarts(
    server: Cluster, billing: Recorder, url: str, tmp_path: Path
) -> None:
    name = str(conninfo_to_dict(url)["dbname"])
    with (
        pgbouncer(server, pool_mode="session") as pooler,
        serving(billing, pooler.url(name)) as running,
    ):
        everything_goes_on(url, billing, running)
        for round in range(2):
            push(url, f"long-{round}", seconds=3)
            with in_the_middle(url, POLLS):
                pooler.stop()
            time.sleep(round)
            pooler.start()
            everything_goes_on(url, billing, running)
            wait_until_ready(running)
        nothing_was_lost_or_done_twice(url, billing)
        assert not lines(running, "Traceback", "never retrieved")


@pytest.mark.xdist_group("outages-between")
def test_connections_that_go_silent_are_given_up_in_bounded_time(
    server: Cluster, billing: Recorder, url: str
) -> None:
    name = str(conninfo_to_dict(url)["dbname"])
    with (
        proxy(server.port) as between,
        serving(
            billing, f"postgresql://postgres@127.0.0.1:{between.port}/{name}"
        ) as running,
    ):
        push_started(url, billing, seconds=5)
        between.stall()
        since = time.monotonic()
        wait_for(lambda: readiness(running)[0] == 503, what="the unreadiness")
        assert time.monotonic() - since < 15
        between.resume_new()
        # ANSWER_TIMEOUT for queries, 1.5 heartbeats for LISTEN, and a pause.
        everything_goes_on(url, billing, running)
        wait_until_ready(running)
        nothing_was_lost_or_done_twice(url, billing)
