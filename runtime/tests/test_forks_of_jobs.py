"""A process that a job forks ends at SIGTERM, and with the service."""

import multiprocessing
import os
import select
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import billing_service
import pytest
from chancy.job import IsAJob
from chancy_runtime import Chancy, Queue, QueuedJob, job
from chancy_runtime.testing import RunJob, Service

pytestmark = pytest.mark.anyio


def nap(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@job()
def uses_a_pool(*, folder: str) -> None:
    """Ends a pool with SIGTERM and waits for it, like Pool.__exit__."""
    context = multiprocessing.get_context("fork")
    with context.Pool(2) as pool:
        pids = pool.map(nap, [0.01, 0.01])
    (Path(folder) / "pids").write_text(" ".join(map(str, pids)))


@job()
def ends_processes_at_once(*, folder: str) -> None:
    """Sends SIGTERM before the child has run a line of Python, in most of the rounds."""
    context = multiprocessing.get_context("fork")
    pids = []
    for _ in range(50):
        child = context.Process(target=nap, args=[600])
        child.start()
        pids.append(child.pid or 0)
        os.kill(child.pid or 0, signal.SIGTERM)
        child.join(10)
        assert child.exitcode == -signal.SIGTERM
    (Path(folder) / "pids").write_text(" ".join(map(str, pids)))


@job()
def leaves_grandchildren(*, folder: str) -> None:
    """Forks twice, as what becomes a daemon does; all ends of the pipe are closed at last."""
    read, write = os.pipe()
    for _ in range(50):
        child = os.fork()
        if not child:
            if not os.fork():
                time.sleep(90)
            os._exit(0)
        os.waitpid(child, 0)
    os.close(write)
    are_gone, _, _ = select.select([read], [], [], 60)
    os.close(read)
    assert are_gone
    (Path(folder) / "pids").write_text("")


@pytest.fixture
async def chancy(
    tables: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Chancy]:
    threads = Queue("thread", executor=Chancy.Executor.Threaded, eager_polling=True)
    monkeypatch.setattr(billing_service, "QUEUES", [*billing_service.QUEUES, threads])
    # The handlers of a server; without the reset its children would have them too.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        async with service.running() as running:
            yield running
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    "forks", [uses_a_pool, ends_processes_at_once, leaves_grandchildren]
)
async def test_a_forked_process_ends_at_sigterm_and_with_the_one_that_forked_it(
    forks: IsAJob[..., None], run_job: RunJob, tmp_path: Path
) -> None:
    ended = await run_job(
        forks.job.with_queue("thread").with_kwargs(folder=str(tmp_path)), timeout=60
    )

    assert ended.state == QueuedJob.State.SUCCEEDED, ended.errors
    for pid in (tmp_path / "pids").read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
