"""Chancy's own program, `chancy --app …`, on a service of this library."""

import subprocess
import sys
from pathlib import Path

import chancy
import pytest
from billing_service import create_chancy
from chancy_runtime import Leadership, WorkersError

from harness.commands import environment, run, wait_for
from harness.databases import query
from harness.recorder import Recorder

CREATE = "app.billing.workers.chancy_initialization.create_chancy"


def program(
    folder: Path, url: str, *arguments: str, app: str = CREATE
) -> subprocess.CompletedProcess[str]:
    return run(
        Path(sys.executable).with_name("chancy"),
        *("--app", app, *arguments),
        cwd=folder,
        env=environment(WORKERS_DATABASE_URL=url, PYTHONPATH=str(folder)),
        check=False,
        timeout=60,
    )


def test_its_worker_is_refused_in_one_line_before_it_takes_a_job(
    backend: Recorder, url: str
) -> None:
    query(
        url,
        "INSERT INTO billing_jobs (id, queue, func) "
        "VALUES (gen_random_uuid(), 'default', 'builtins.print')",
    )

    result = program(backend.folder, url, "worker", "start")

    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "chancy_runtime does not run in Chancy's own Worker" in line
    assert "start the service" in line and "uvicorn app.billing.main:app" in line
    assert query(url, "SELECT state FROM billing_jobs") == [("pending",)]
    assert query(url, "SELECT * FROM billing_workers") == []


QUICK_START = """
import os

from chancy_runtime import Chancy, job

@job()
def hello_world(*, name: str) -> None:
    print(f"Hello, {name}!")

chancy = Chancy(os.environ["WORKERS_DATABASE_URL"])
"""


def test_so_it_is_without_a_plugin_of_the_library(
    database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "worker.py").write_text(QUICK_START)
    push = ("queue", "push", "worker.hello_world", "--kwargs", '{"name": "Ada"}')
    for command in (("misc", "migrate"), ("queue", "declare", "default"), push):
        result = program(tmp_path, database_url, *command, app="worker.chancy")
        assert result.returncode == 0, result.stderr

    result = program(tmp_path, database_url, "worker", "start", app="worker.chancy")

    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert "Chancy of chancy_runtime does not run in Chancy's own Worker" in line
    assert query(database_url, "SELECT state FROM chancy_jobs") == [("pending",)]


@pytest.mark.anyio
@pytest.mark.usefixtures("tables")
async def test_chancy_s_worker_is_refused_in_an_own_program_too(
    database_url: str,
) -> None:
    async with create_chancy() as ours:
        with pytest.raises(WorkersError, match="does not run in Chancy's own Worker"):
            await chancy.Worker(ours, register_signal_handlers=False).start()
    plugins: list[chancy.plugin.Plugin] = [Leadership()]
    async with chancy.Chancy(
        database_url, prefix="billing_", plugins=plugins, no_default_plugins=True
    ) as plain:
        with pytest.raises(WorkersError, match="uvicorn your.module:app"):
            await chancy.Worker(plain, register_signal_handlers=False).start()


def test_its_other_commands_work(backend: Recorder, url: str) -> None:
    job = "app.billing.workers.record.worker.record"
    kwargs = '{"note": "by hand"}'
    for command in (
        ("misc", "migrate"),
        ("misc", "check-migrations"),
        ("queue", "push", job, "--kwargs", kwargs),
        ("queue", "list"),
    ):
        result = program(backend.folder, url, *command)
        assert result.returncode == 0, result.stderr
    with backend.service(url) as running:
        wait_for(lambda: backend.executions["by hand"], what="the pushed job")
        running.stop()
