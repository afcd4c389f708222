"""The demo runs all steps and leaves nothing behind, even after a failure or a signal."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .support import TEMPLATE, environment, run, wait_for


@pytest.fixture
def scratch() -> Iterator[Path]:
    """The temporary folder of a demo, with a space in its path."""
    with tempfile.TemporaryDirectory(prefix="a demo ") as folder:
        yield Path(folder)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "chancy_workers.demo", *arguments]


def variables(scratch: Path) -> dict[str, str]:
    uv = os.environ.get("UV") or shutil.which("uv")
    assert uv, "uv is not installed: python3 -m pip install uv"
    return environment(TMPDIR=str(scratch), UV=uv, PYTHONPATH=str(TEMPLATE / "tools"))


def left_behind(scratch: Path) -> list[str]:
    """Folders of the demo, and processes that use one."""
    found = [str(path) for path in scratch.glob("chancy-workers-demo-*")]
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_text() + str(
                    (process / "cwd").readlink()
                )
            except OSError:
                continue
            if str(scratch) in words:
                found.append(f"process {process.name}: {words}")
    return found


@contextmanager
def demo(
    scratch: Path, *arguments: str
) -> Iterator[tuple["subprocess.Popen[bytes]", Path]]:
    """The demo in its own process group, like from a terminal."""
    output = scratch / "output"
    with output.open("wb") as stream:
        process = subprocess.Popen(
            command(*arguments),
            cwd=scratch,
            env=variables(scratch),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            process_group=0,
        )
    try:
        yield process, output
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_the_demo_renders_boots_and_runs_every_job(scratch: Path) -> None:
    result = run(*command(), cwd=scratch, env=variables(scratch))

    assert "50 jobs ran" in result.stdout
    assert "send_digest ran: number 0" in result.stdout
    assert left_behind(scratch) == []


def test_keep_leaves_the_rendered_backend(scratch: Path) -> None:
    run(*command("--keep", "mine"), cwd=scratch, env=variables(scratch))

    assert (scratch / "mine" / "app" / "billing" / "main.py").is_file()
    assert left_behind(scratch) == []

    again = run(
        *command("--keep", "mine"), cwd=scratch, env=variables(scratch), check=False
    )
    assert again.returncode == 2
    assert "mine exists and is not empty: name a new folder" in again.stderr


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "step",
    ["Rendering", "Installing", "Starting PostgreSQL", "Creating", "Booting"],
)
def test_after_a_signal_at_any_step_everything_is_cleaned_up(
    step: str, signum: signal.Signals, scratch: Path
) -> None:
    with demo(scratch) as (process, output):
        wait_for(
            lambda: f"✓ {step}" in output.read_text(),
            what=f"the end of {step}",
        )
        if signum == signal.SIGINT:
            os.killpg(process.pid, signum)  # Ctrl-C reaches the whole group.
        else:
            process.send_signal(signum)
        status = process.wait(60)

    assert status == 128 + signum, output.read_text()
    assert "everything was cleaned up" in output.read_text()
    assert left_behind(scratch) == []


def test_ctrl_c_during_the_imports_leaves_no_traceback(scratch: Path) -> None:
    """Python prints its imports; the import of Copier takes longest."""
    process = subprocess.Popen(
        [sys.executable, "-X", "importtime", "-m", "chancy_workers.demo"],
        cwd=scratch,
        env=variables(scratch),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
    )
    assert process.stdout
    for line in process.stdout:
        if "| " in line and line.rpartition("| ")[2].strip().startswith("copier."):
            os.killpg(process.pid, signal.SIGINT)
            break
    rest = process.stdout.read()

    assert process.wait(60) == 128 + signal.SIGINT, rest
    assert "Traceback" not in rest and "everything was cleaned up" in rest
    assert left_behind(scratch) == []


def test_the_demo_ignores_proxies_and_settings_of_other_projects(
    scratch: Path,
) -> None:
    uv = scratch / "uv"
    uv.write_text(
        f'#!/bin/sh\nunset http_proxy\nexec {variables(scratch)["UV"]} "$@"\n'
    )
    uv.chmod(0o700)
    elsewhere = {
        "http_proxy": "http://127.0.0.1:9",
        "LOG_LEVEL": "WARNING",
        "SENTRY_DSN": "no DSN at all",
        "UV": str(uv),
        "UV_FROZEN": "1",
        "UV_PROJECT_ENVIRONMENT": str(scratch / "venv"),
        "WEB_CONCURRENCY": "3",
        "WORKERS_DATABASE_URL": "postgresql://127.0.0.1:9/theirs",
    }

    result = run(*command(), cwd=scratch, env=variables(scratch) | elsewhere)

    assert "50 jobs ran" in result.stdout
    assert not (scratch / "venv").exists()


def test_a_missing_program_is_reported(scratch: Path) -> None:
    result = run(
        *command(),
        cwd=scratch,
        env=variables(scratch) | {"UV": "/nowhere/uv"},
        check=False,
    )

    assert result.returncode == 1
    assert "Failed: [Errno 2] No such file" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


def test_a_failure_is_reported_and_everything_is_cleaned_up(scratch: Path) -> None:
    result = run(
        *command(),
        cwd=scratch,
        env=variables(scratch) | {"UV": "/bin/false"},
        check=False,
    )

    assert result.returncode == 1
    assert "Failed: /bin/false sync --quiet ended with 1" in result.stdout
    assert left_behind(scratch) == []
