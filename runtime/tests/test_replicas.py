"""Replicas that are killed, stopped and restarted: each job still succeeds once."""

import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import pytest

from harness.commands import wait_for
from harness.databases import query
from harness.probes import wait_until_ready
from harness.recorder import (
    QUICK,
    Recorder,
    make_tables,
    push,
    push_many,
    recorder,
    states,
)
from harness.services import Service

LEASE = 10
HEARTBEAT_TIMEOUT = 10
QUEUES = """[
    Queue("default", executor=Chancy.Executor.Async, concurrency=20, eager_polling=True),
    Queue("ordered", executor=Chancy.Executor.Async, concurrency=1, eager_polling=True),
]"""


@pytest.fixture(scope="module")
def of_all_tests(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    folder = tmp_path_factory.mktemp("replicas") / "backend"
    assert f"heartbeat_timeout={HEARTBEAT_TIMEOUT}" in QUICK
    assert f"leader_lease={LEASE}" in QUICK
    return recorder(folder, QUEUES=QUEUES)


@pytest.fixture
def backend(of_all_tests: Recorder, tmp_path: Path, database_url: str) -> Recorder:
    """A backend for this test only, with its tables."""
    make_tables(database_url)
    return of_all_tests.copy(tmp_path / "backend")


class Replicas:
    """Services on one database, each identified by the id of its worker."""

    def __init__(self, backend: Recorder, url: str) -> None:
        self.running: dict[str, Service] = {}
        self._backend = backend
        self._url = url
        self._stack = ExitStack()

    def workers(self) -> set[str]:
        return {
            id for (id,) in query(self._url, "SELECT worker_id FROM billing_workers")
        }

    def start(self) -> str:
        """Starts one; returns its worker's id."""
        before = self.workers()
        service = self._stack.enter_context(self._backend.service(self._url))
        wait_until_ready(service)
        new = wait_for(lambda: self.workers() - before, what="the worker's row")
        id = str(*new)
        self.running[id] = service
        return id

    def leader(self) -> str | None:
        rows = query(
            self._url, "SELECT worker_id FROM billing_leader WHERE expires_at > NOW()"
        )
        return rows[0][0] if rows else None

    def wait_for_leader(self, *, other_than: str = "") -> str:
        return str(
            wait_for(
                lambda: (leader := self.leader()) not in (None, other_than) and leader,
                what="a new leader",
            )
        )

    def close(self) -> None:
        self._stack.close()


@contextmanager
def replicas(backend: Recorder, url: str, count: int) -> Iterator[Replicas]:
    running = Replicas(backend, url)
    try:
        for _ in range(count):
            running.start()
        yield running
    finally:
        running.close()


def running_at(url: str, worker: str) -> list[str]:
    """The ids of the jobs that a worker runs."""
    rows = query(
        url,
        "SELECT id::text FROM billing_jobs WHERE state = 'running' AND taken_by = %s",
        worker,
    )
    return [id for (id,) in rows]


@pytest.mark.parametrize(
    ("leads", "process"), [(True, "api"), (False, "own")], ids=["leader", "other"]
)
def test_the_jobs_of_a_killed_replica_run_elsewhere_once(
    leads: bool, process: str, backend: Recorder, database_url: str
) -> None:
    backend.process = process
    with replicas(backend, database_url, 3) as group:
        leader = group.wait_for_leader()
        victim = next(id for id in group.running if (id == leader) is leads)
        jobs = "jsonb_build_object('note', 'job ' || n, 'seconds', 8), 0"
        push_many(database_url, 44, "default", jobs)
        push(database_url, "job 0", seconds=8)
        wait_for(
            lambda: (
                states(database_url)["running"] > 40
                and running_at(database_url, victim)
            ),
            what="the jobs",
        )
        group.running[victim].process.send_signal(signal.SIGSTOP)
        lost = running_at(database_url, victim)
        group.running[victim].process.kill()
        killed = time.monotonic()

        if leads:
            new = group.wait_for_leader(other_than=victim)
            assert new in group.running
        else:
            assert group.leader() == leader
        wait_for(
            lambda: states(database_url) == {"succeeded": 45},
            what="all jobs",
        )
        assert time.monotonic() - killed > HEARTBEAT_TIMEOUT / 2

    notes = dict(
        query(database_url, "SELECT id::text, kwargs ->> 'note' FROM billing_jobs")
    )
    twice = {note for note, times in backend.executions.items() if times == 2}
    assert twice == {notes[id] for id in lost}
    assert backend.executions.total() == 45 + len(lost)
    assert query(
        database_url, "SELECT DISTINCT attempts, max_attempts FROM billing_jobs"
    ) == [(1, 1)]


def test_a_leader_that_stops_hands_over_at_once(
    backend: Recorder, database_url: str
) -> None:
    backend.edit(
        "chancy_initialization.py", f"leader_lease={LEASE}", "leader_lease=600"
    )
    with replicas(backend, database_url, 2) as group:
        leader = group.wait_for_leader()

        group.running.pop(leader).stop()

        assert leader not in group.workers()
        assert group.wait_for_leader(other_than=leader) in group.running


class Unique:
    """Pushes the same unique keys again and again, and looks for two rows with one key."""

    def __init__(self, url: str) -> None:
        self.pushed = 0
        self.doubled: list[object] = []
        self._url = url
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._push) for _ in range(2)]

    def _push(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._stopping.wait(0.02):
                # Like Chancy's push: a key that waits or runs is not pushed again.
                cursor = connection.execute(
                    "INSERT INTO billing_jobs (id, queue, func, kwargs, unique_key) "
                    "SELECT gen_random_uuid(), 'default', "
                    "'app.billing.workers.record.worker.record', "
                    "jsonb_build_object('note', 'unique ' || key, 'seconds', 0.3), "
                    "'key ' || key FROM generate_series(1, 3) AS key "
                    "ON CONFLICT (unique_key) "
                    "WHERE unique_key IS NOT NULL AND state NOT IN "
                    "('succeeded', 'failed') DO NOTHING"
                )
                self.pushed += cursor.rowcount
                self.doubled += connection.execute(
                    "SELECT unique_key, count(*) FROM billing_jobs "
                    "WHERE unique_key IS NOT NULL "
                    "AND state IN ('pending', 'running', 'retrying') "
                    "GROUP BY 1 HAVING count(*) > 1"
                ).fetchall()

    def __enter__(self) -> "Unique":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()


@pytest.mark.parametrize(
    ("count", "jobs"),
    [
        (2, 2_000),
        pytest.param(4, 2_000, marks=pytest.mark.slow),
        pytest.param(2, 10_000, marks=pytest.mark.slow),
        pytest.param(4, 10_000, marks=pytest.mark.slow),
        pytest.param(8, 10_000, marks=pytest.mark.slow),
    ],
)
def test_every_job_succeeds_once_while_replicas_are_restarted(
    count: int, jobs: int, backend: Recorder, database_url: str
) -> None:
    random.seed(count)
    push_many(
        database_url,
        jobs,
        "default",
        "jsonb_build_object('note', 'job ' || n, 'seconds', random() / 2), 0",
    )
    # Low priorities first, so that the order of insertion would be wrong.
    push_many(
        database_url,
        90,
        "ordered",
        "jsonb_build_object('note', 'ordered ' || n, 'seconds', 0.1), n / 31",
    )
    restarts = 0

    with replicas(backend, database_url, count) as group:
        with Unique(database_url) as unique:
            while states(database_url)["pending"] > 3 or restarts < count:
                oldest = next(iter(group.running))
                group.running.pop(oldest).stop()
                group.start()
                restarts += 1
        wait_for(
            lambda: states(database_url).keys() == {"succeeded"},
            what="the end of all jobs",
        )
        for service in group.running.values():
            service.stop()

    assert unique.doubled == []
    assert query(database_url, "SELECT DISTINCT state, attempts FROM billing_jobs") == [
        ("succeeded", 1)
    ]
    once = {note: n for note, n in backend.executions.items() if "unique" not in note}
    assert len(once) == jobs + 90
    assert set(once.values()) == {1}
    assert backend.executions.total() - len(once) == unique.pushed
    ((late,),) = query(
        database_url,
        "SELECT count(*) FROM billing_jobs a JOIN billing_jobs b USING (queue) "
        "WHERE queue = 'ordered' AND a.priority > b.priority "
        # Two replicas may each take a job at the same moment.
        "AND a.started_at > b.started_at + INTERVAL '0.3 seconds'",
    )
    assert late == 0
