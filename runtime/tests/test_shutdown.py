"""SIGTERM: jobs finish within the grace; jobs that do not finish run again soon."""

import os
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.commands import environment, run, wait_for
from harness.databases import database, query
from harness.probes import wait_until_ready
from harness.recorder import (
    RECORDING_JOB,
    Recorder,
    push,
    recorder,
    row,
    seconds_between,
    states,
    wait_until_executed,
)
from harness.sentry import sentry
from harness.servers import Cluster, Proxy, proxy
from harness.services import Service

BLOCKING_JOB = (
    RECORDING_JOB.replace("async def", "def")
    .replace("await asyncio.sleep", "time.sleep")
    .replace("import asyncio\nimport os", "import os\nimport time")
)
# The executor of the queue, and the kind of process in which the workers run.
EXECUTORS = [
    ("async", "api"),
    ("thread", "api"),
    ("process", "api"),
    ("process", "own"),
    ("thread", "own"),
]
SLOW_ENDPOINT = '''

@app.get("/slow")
async def show_slowly() -> dict[str, str]:
    """Answers when there is a file."""
    import asyncio
    import pathlib

    while not pathlib.Path("answer").exists():
        await asyncio.sleep(0.02)
    return {"answer": "slow"}
'''

KINDS = {"async": "Async", "thread": "Threaded", "process": "Process"}


def backend_of(
    executor: str, folder: Path, process: str = "api", *, grace: int = 2
) -> Recorder:
    """A backend whose queue polls every ten minutes."""
    backend = recorder(
        folder / "backend",
        settings=f"Settings(shutdown_grace={grace})",
        job=RECORDING_JOB if executor == "async" else BLOCKING_JOB,
        QUEUES=f"""[Queue("default", executor=Chancy.Executor.{KINDS[executor]},
            concurrency=2, eager_polling=True, polling_interval=600)]""",
    )
    backend.process = process
    return backend


@pytest.fixture
def url(migrated_url: str) -> str:
    return migrated_url


@pytest.mark.parametrize(("executor", "process"), EXECUTORS)
def test_an_idle_service_is_gone_long_before_its_grace(
    executor: str, process: str, url: str, tmp_path: Path
) -> None:
    backend = backend_of(executor, tmp_path, process, grace=300)

    with backend.service(url) as running:
        wait_until_ready(running)
        running.stop()

    assert query(url, "SELECT * FROM billing_workers") == []
    assert query(url, "SELECT * FROM billing_leader") == []


@pytest.mark.parametrize(("executor", "process"), EXECUTORS)
def test_running_jobs_finish_and_no_other_is_taken(
    executor: str, process: str, url: str, tmp_path: Path
) -> None:
    backend = backend_of(executor, tmp_path, process, grace=300)

    with backend.service(url) as running:
        wait_until_ready(running)
        for note in ("first", "second", "third", "fourth"):
            push(url, note, seconds=3)
        wait_until_executed(backend, "first", "second")
        # Long before the grace ends and the queue polls.
        running.process.terminate()
        wait_for(lambda: "Shutting down" in running.output, what="the stop")
        begun = backend.executions
        push(url, "late", seconds=3)
        running.stop()

    assert backend.executions == begun
    assert states(url) == {"succeeded": len(begun), "pending": 5 - len(begun)}


@pytest.mark.parametrize(("executor", "process"), EXECUTORS)
def test_jobs_that_do_not_finish_run_again_at_the_next_start(
    executor: str, process: str, url: str, tmp_path: Path
) -> None:
    backend = backend_of(executor, tmp_path, process)

    with sentry() as (dsn, events):
        variables = {"SENTRY_DSN": dsn}
        with backend.service(url, variables=variables) as running:
            wait_until_ready(running)
            id = push(url, "long", seconds=60)
            wait_until_executed(backend, "long")
            with seconds_between(1.9, 30):
                running.stop()
        assert row(url, id) == ("pending", 0, 1, None, [])

        query(
            url,
            "UPDATE billing_jobs SET kwargs = kwargs || '{\"seconds\": 0}'",
        )
        with backend.service(url, variables=variables) as running:
            # Long before the heartbeat timeout, which is 90 s here.
            wait_for(
                lambda: states(url) == {"succeeded": 1},
                what="the second run",
            )
            running.stop()

    assert row(url, id)[:3] == ("succeeded", 1, 1)
    assert backend.executions["long"] == 2
    assert events == []


@pytest.mark.parametrize(
    ("process", "number"),
    [
        ("api", signal.SIGTERM),
        ("api", signal.SIGINT),
        ("own", signal.SIGTERM),
        ("own", signal.SIGINT),
    ],
)
def test_a_thread_that_does_not_end_keeps_no_process_alive(
    process: str, number: signal.Signals, url: str, tmp_path: Path
) -> None:
    backend = backend_of("thread", tmp_path, process)
    worker = backend.folder / "app/billing/workers/record/worker.py"
    fork = """    import multiprocessing

    multiprocessing.get_context("fork").Process(target=time.sleep, args=[600]).start()
    time.sleep"""
    text = worker.read_text()
    assert "    time.sleep" in text
    worker.write_text(text.replace("    time.sleep", fork))

    with backend.service(url) as running:
        wait_until_ready(running)
        push(url, "endless", seconds=600)
        wait_until_executed(backend, "endless")
        # Ctrl-C in a terminal also reaches the processes that the job has started.
        (os.killpg if number == signal.SIGINT else os.kill)(running.process.pid, number)
        running.process.wait(60)
        wait_for(lambda: not running.processes(), what="the end of the job's process")

    assert states(url) == {"pending": 1}


def test_a_second_signal_changes_nothing(url: str, tmp_path: Path) -> None:
    backend = backend_of("async", tmp_path, grace=20)

    with backend.service(url) as running:
        wait_until_ready(running)
        push(url, "job", seconds=2)
        wait_until_executed(backend, "job")
        running.process.terminate()
        wait_for(lambda: "Shutting down" in running.output, what="the shutdown")
        running.stop()

    assert states(url) == {"succeeded": 1}


@pytest.mark.parametrize(
    ("moment", "process"),
    [
        ("Waiting for application startup", "api"),
        ("Started plugin", "api"),
        ("Adding queue", "api"),
        ("Waiting for application startup", "own"),
        ("Started plugin", "own"),
    ],
)
def test_a_signal_during_the_start_ends_it_cleanly(
    moment: str, process: str, url: str, tmp_path: Path
) -> None:
    backend = backend_of("process", tmp_path, process)

    with backend.service(url, wait=False) as running:
        wait_for(lambda: moment in running.output, what=moment)
        running.stop()

    assert query(url, "SELECT * FROM billing_workers") == []
    assert query(url, "SELECT * FROM billing_leader") == []


@pytest.mark.parametrize(
    ("way", "seconds"),
    [(way, seconds) for way in ("stopped", "silent") for seconds in (0, 2, 60)],
)
def test_a_database_that_is_down_does_not_delay_the_stop(
    way: str, seconds: float, server: Cluster, tmp_path: Path
) -> None:
    backend = backend_of("async", tmp_path, grace=4)

    with database(server.url()) as url, proxy(server.port) as between:
        through = url.replace(f":{server.port}/", f":{between.port}/")
        with backend.service(through) as running:
            wait_until_ready(running)
            if seconds:
                push(url, "job", seconds=seconds)
                wait_until_executed(backend, "job")
            with down(server) if way == "stopped" else silent(between):
                with seconds_between(0, 4 + 14 if seconds else 14):
                    running.stop()
        # It runs again after the heartbeat timeout: the worker could not give it back.
        assert states(url) == ({"running": 1} if seconds else {})


@contextmanager
def down(server: Cluster) -> Iterator[None]:
    server.stop()
    try:
        yield
    finally:
        server.start()


@contextmanager
def silent(between: Proxy) -> Iterator[None]:
    between.stall()
    yield


def test_an_open_request_is_answered_while_the_workers_already_stop(
    url: str, tmp_path: Path
) -> None:
    backend = backend_of("async", tmp_path)
    with (backend.folder / "app/billing/main.py").open("a") as main:
        main.write(SLOW_ENDPOINT)
    answers: list[object] = []

    with backend.service(url) as running:
        wait_until_ready(running)
        cut = push(url, "cut", seconds=60)
        wait_until_executed(backend, "cut")
        request = threading.Thread(
            target=lambda: answers.append(running.request("/slow"))
        )
        request.start()
        wait_for(lambda: len(connections_of(running)) > 0, what="the request")
        running.process.terminate()
        wait_for(
            lambda: "Waiting for connections" in running.output,
            what="the shutdown",
        )
        push(url, "late")
        # The grace of 2 s began at the signal, not at the end of the request.
        wait_for(
            lambda: row(url, cut)[0] == "pending",
            what="the end of the grace",
        )
        assert answers == []
        (backend.folder / "answer").touch()
        request.join(60)
        assert answers == [{"answer": "slow"}]
        running.stop()

    assert dict(backend.executions) == {"cut": 1}
    assert states(url) == {"pending": 2}


def connections_of(running: Service) -> list[str]:
    """The connections that the service's HTTP server has accepted."""
    port = int(running.address.rpartition(":")[2])
    lines = Path("/proc/net/tcp").read_text().splitlines()
    return [
        line for line in lines if re.search(rf":\s+\w+:{port:04X} \w+:\w+ 01", line)
    ]


HOSTS = """
import asyncio, os, signal, threading
from fastapi.testclient import TestClient
from app.billing.main import app
from app.billing.workers.chancy_instance import get_chancy

heard = []
signals = [signal.SIGTERM]

with TestClient(app):
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL

async def main():
    async with app.router.lifespan_context(app):
        assert signal.getsignal(signal.SIGTERM) is handler
    if handler is signal.SIG_DFL:
        return

handler = signal.SIG_DFL
asyncio.run(main())

def handler(number, frame):
    heard.append(number)

async def with_handler():
    signal.signal(signal.SIGTERM, handler)
    async with app.router.lifespan_context(app):
        assert signal.getsignal(signal.SIGTERM) is not handler
        assert get_chancy().workers
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(60):
            while get_chancy().workers:
                await asyncio.sleep(0.02)
    assert heard == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is handler

asyncio.run(with_handler())

async def with_a_later_handler():
    async with app.router.lifespan_context(app):
        signal.signal(signal.SIGTERM, later)
    assert signal.getsignal(signal.SIGTERM) is later

def later(number, frame): ...

asyncio.run(with_a_later_handler())
print("all is well")
"""


def test_the_server_s_own_handler_is_called_and_comes_back(
    url: str, tmp_path: Path
) -> None:
    backend = backend_of("async", tmp_path)

    result = run(
        *(sys.executable, "-c", HOSTS),
        cwd=backend.folder,
        env=environment(**backend.variables(url)),
        timeout=60,
    )

    assert "all is well" in result.stdout
