"""Several Workers and children of executors: each takes only its jobs, none is left over."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from harness.commands import environment, wait_for
from harness.databases import query
from harness.probes import wait_until_ready
from harness.recorder import (
    INITIALIZATION,
    RECORDING_JOB,
    Recorder,
    make_tables,
    push,
    push_many,
    recorder,
    row,
    seconds_between,
    states,
    wait_until_executed,
)
from harness.services import Service

PROCESSES = """[Queue("default", executor=Chancy.Executor.Process, concurrency=3,
    eager_polling=True)]"""
BAD_JOB = '''"""The record job."""

import os
import signal
import time

from chancy_runtime import job


class Particular(Exception):
    """Cannot be unpickled: it takes two arguments and passes only one to its base."""

    def __init__(self, text: str, other: str) -> None:
        super().__init__(text)
        self.other = other


@job(queue="default")
def record(*, note: str = "cron", seconds: float = 0) -> int:
    """Records that it runs, and does what its note names."""
    with open(os.environ["EXECUTIONS"], "a") as file:
        file.write(f"{note}\\n")
    with open("pids.txt", "a") as file:
        file.write(f"{os.getpid()}\\n")
    kind = note.partition(" ")[0]
    if kind == "deaf":
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    if kind == "busy":
        while True:
            pass
    if kind == "in_c":
        sum(range(10**11))
    if kind == "unpicklable":
        error = RuntimeError("holds a function")
        error.function = lambda: None  # type: ignore[attr-defined]
        raise error
    if kind == "particular":
        raise Particular("cannot come back", "at all")
    if kind == "exit":
        os._exit(1)
    if kind == "guardless":
        import serve
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        try:
            time.sleep(left)
        except BaseException:
            if kind != "deaf":
                raise
    return os.getpid()
'''
GUARDLESS = """import os

import uvicorn

from app.billing.main import app

with open("started.txt", "a") as file:
    file.write(f"{os.getpid()}\\n")
uvicorn.run(app, port=int(os.environ["PORT"]))
"""
TAGGED = """[
    Queue("api", executor=Chancy.Executor.Async, concurrency=5, tags={"^api$"},
        eager_polling=True),
    Queue("heavy", executor=Chancy.Executor.Async, concurrency=5, tags={"^api-heavy$"},
        eager_polling=True),
    Queue("both", executor=Chancy.Executor.Async, concurrency=5, eager_polling=True),
]"""
ONE_WORKER = "Worker(chancy, register_signal_handlers=False)"
TWO_WORKERS = """together(
    Worker(chancy, register_signal_handlers=False, tags={"api"}),
    Worker(chancy, register_signal_handlers=False, tags={"api-heavy"}),
)"""


@pytest.fixture(scope="module")
def of_all_tests(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    """A backend whose jobs run in child processes."""
    return recorder(
        tmp_path_factory.mktemp("executors") / "backend",
        settings="Settings(shutdown_grace=2)",
        job=BAD_JOB,
        QUEUES=PROCESSES,
    )


@pytest.fixture
def backend(of_all_tests: Recorder, database_url: str) -> Recorder:
    """The backend with its tables and without executions."""
    of_all_tests.executions_file.write_text("")
    make_tables(database_url)
    return of_all_tests


@contextmanager
def guardless_service(backend: Recorder, url: str, port: int) -> Iterator[Service]:
    """The service as a script that calls uvicorn.run() without a __main__ guard."""
    (backend.folder / "serve.py").write_text(GUARDLESS)
    (backend.folder / "started.txt").write_text("")
    log = backend.folder / f"serve-{uuid4().hex}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "serve.py"],
            cwd=backend.folder,
            env=environment(**backend.variables(url), PORT=str(port)),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    running = Service(process, log)
    try:
        running.wait_until_up()
        yield running
    finally:
        if running.processes():
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def succeeded(url: str, ids: list[str]) -> bool:
    return all(row(url, id)[0] == "succeeded" for id in ids)


def test_a_script_without_a_guard_starts_only_one_service(
    backend: Recorder, database_url: str
) -> None:
    with guardless_service(backend, database_url, 0) as running:
        wait_until_ready(running)
        ids = [push(database_url, f"job {number}") for number in range(3)]
        wait_for(lambda: succeeded(database_url, ids), what="jobs in children")
        started = (backend.folder / "started.txt").read_text().split()
        assert started == [str(running.process.pid)], running.output
        # A job that imports the script starts it again; the child refuses to serve.
        guardless = push(database_url, "guardless")
        wait_for(
            lambda: row(database_url, guardless)[0] == "failed",
            what="the failure of the job",
        )
        refused = "a child process of an executor started the service again"
        assert running.output.count(refused) == 1, running.output
        assert running.output.count("Uvicorn running on") == 1
        assert len(query(database_url, "SELECT worker_id FROM billing_workers")) == 1
        running.stop()


@pytest.mark.parametrize(
    ("how", "kind"),
    [
        ("SIGTERM", "deaf"),
        ("SIGTERM", "busy"),
        ("SIGTERM", "in_c"),
        ("SIGKILL", "quiet"),
        ("SIGKILL", "in_c"),
    ],
)
def test_no_child_outlives_the_service(
    how: str, kind: str, backend: Recorder, database_url: str
) -> None:
    with backend.service(database_url) as running:
        wait_until_ready(running)
        id = push(database_url, kind, seconds=600)
        wait_until_executed(backend, kind)
        assert len(running.processes()) >= 4  # service, tracker, manager, child
        if how == "SIGTERM":
            with seconds_between(1.9, 30):
                running.stop()
            assert row(database_url, id)[:2] == ("pending", 0)
        else:
            running.process.kill()
            running.process.wait()
            wait_for(
                lambda: not running.processes(),
                what="the end of the service's children",
            )


def test_a_signal_to_all_processes_at_once_lets_the_jobs_finish(
    backend: Recorder, database_url: str
) -> None:
    backend.edit("chancy_initialization.py", "shutdown_grace=2", "shutdown_grace=20")
    try:
        with backend.service(database_url) as running:
            wait_until_ready(running)
            # The first job is running; the children of the others are still starting.
            ids = [push(database_url, "first", seconds=2)]
            wait_until_executed(backend, "first")
            ids += [push(database_url, note, seconds=1) for note in ("b", "c")]
            wait_for(
                lambda: states(database_url) == {"running": 3},
                what="the other jobs",
            )
            os.killpg(running.process.pid, signal.SIGTERM)
            running.stop()
    finally:
        backend.edit(
            "chancy_initialization.py", "shutdown_grace=20", "shutdown_grace=2"
        )

    assert succeeded(database_url, ids), states(database_url)
    assert dict(backend.executions) == {"first": 1, "b": 1, "c": 1}


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("unpicklable", "holds a function"),
        ("particular", "cannot come back"),
        ("exit", "terminated abruptly"),
    ],
)
def test_a_broken_child_fails_only_its_own_job(
    kind: str, text: str, backend: Recorder, database_url: str
) -> None:
    with backend.service(database_url) as running:
        wait_until_ready(running)
        neighbours = [push(database_url, f"by {n}", seconds=5) for n in range(2)]
        wait_until_executed(backend, "by 0", "by 1")
        bad = [push(database_url, f"{kind} {number}") for number in range(3)]
        wait_for(
            lambda: all(row(database_url, id)[0] == "failed" for id in bad),
            what="the failure of the jobs",
        )
        later = push(database_url, "later")
        wait_for(
            lambda: succeeded(database_url, [*neighbours, later]),
            what="the neighbours",
        )
        running.stop()

    for id in bad:
        assert text in str(row(database_url, id)[4])
    assert set(backend.executions.values()) == {1}


def test_children_are_replaced_after_as_many_jobs_as_they_may_run(
    backend: Recorder, database_url: str
) -> None:
    options = "executor_options={'maximum_jobs_per_worker': 5}"
    backend.edit(
        "chancy_initialization.py", "concurrency=3,", f"concurrency=3, {options},"
    )
    try:
        with backend.service(database_url) as running:
            wait_until_ready(running)
            pids = backend.folder / "pids.txt"
            pids.write_text("")
            for number in range(60):
                push(database_url, f"job {number}")
            wait_for(
                lambda: states(database_url) == {"succeeded": 60},
                timeout=90,
                what="all jobs",
            )
            # The service, tracker, manager, and at most one child for each slot.
            wait_for(
                lambda: len(running.processes()) <= 3 + 3,
                what="the end of the replaced children",
            )
            running.stop()
    finally:
        backend.edit(
            "chancy_initialization.py", f"concurrency=3, {options},", "concurrency=3,"
        )

    assert set(backend.executions.values()) == {1}
    assert max(Counter(pids.read_text().split()).values()) == 5


def test_each_worker_takes_its_queues_and_all_stop_together(
    tmp_path: Path, database_url: str
) -> None:
    backend = recorder(
        tmp_path / "backend",
        settings="Settings(shutdown_grace=20, poll_interval=1)",
        job=RECORDING_JOB.replace('queue="default"', 'queue="both"'),
        cron="0 0 1 1 *",
        QUEUES=TAGGED,
    )
    backend.edit(INITIALIZATION, ONE_WORKER, TWO_WORKERS)
    backend.add_import("from chancy_runtime import together")
    make_tables(database_url)

    with backend.service(database_url) as running:
        wait_until_ready(running)
        query(database_url, "UPDATE billing_cron SET next_run = NOW()")
        # One Worker gets half a minute of work, the other one job of four seconds.
        heavy = "jsonb_build_object('note', 'heavy ' || n, 'seconds', 0.5), 0"
        push_many(database_url, 300, "heavy", heavy)
        push(database_url, "heavy", queue="heavy")
        wait_for(lambda: backend.executions.total() > 5, what="the work")
        push(database_url, "api", queue="api", seconds=4)
        wait_until_executed(backend, "api", "cron")
        taken = dict(
            query(
                database_url,
                "SELECT queue, array_agg(DISTINCT taken_by) FROM billing_jobs "
                "WHERE taken_by IS NOT NULL AND queue <> 'both' GROUP BY queue",
            )
        )
        tags = dict(query(database_url, "SELECT worker_id, tags FROM billing_workers"))
        for queue, tag in (("api", "api"), ("heavy", "api-heavy")):
            (worker,) = taken[queue]
            assert tag in tags[worker]
        # The Worker with short jobs takes no more while the other still runs its long job.
        with seconds_between(0, 30):
            running.process.terminate()
            wait_for(lambda: "Shutting down" in running.output, what="the stop")
            begun = backend.executions
            running.stop()

    assert backend.executions == begun
    assert begun["cron"] == 1
    assert states(database_url)["succeeded"] == begun.total()
