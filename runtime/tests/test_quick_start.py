"""A program of one's own, as Chancy's first page has it: `python worker.py`, then Ctrl+C."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.commands import environment, wait_for
from harness.databases import query

PROGRAM = """
import asyncio
import os

from chancy_runtime import Chancy, Queue, Worker, job

app = Chancy(os.environ["DATABASE"])

@job()
async def greet(*, name: str) -> None:
    print(f"Hello, {name}!", flush=True)

async def main() -> None:
    async with app:
        await app.migrate()
        await app.declare(Queue("default", executor=Chancy.Executor.Async))
        await app.push(greet.job.with_kwargs(name="Ada"))
        async with Worker(app) as worker:
            await worker.wait_for_shutdown()
    print("closed", flush=True)

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_works_until_a_signal_and_leaves_nothing_behind(
    number: signal.Signals, database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "worker.py").write_text(PROGRAM)
    log = tmp_path / "log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [sys.executable, "worker.py"],
            cwd=tmp_path,
            env=environment(DATABASE=database_url),
            stdout=output,
            stderr=output,
        ) as process,
    ):
        try:
            wait_for(
                lambda: "Hello, Ada!" in log.read_text(), timeout=60, what="the job"
            )
            process.send_signal(number)
            assert process.wait(60) == 0
        finally:
            process.kill()

    said = log.read_text()
    assert said.endswith("closed\n") and "Traceback" not in said
    assert query(database_url, "SELECT state FROM chancy_jobs") == [("succeeded",)]
    assert query(database_url, "SELECT * FROM chancy_workers") == []
