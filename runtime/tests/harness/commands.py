"""Runs commands for tests, and waits for their effects."""

import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.environments import environment
from harness.forks import FORKS, Fork

__all__ = ["environment", "run", "start", "wait_for"]


def run(
    *command: str | Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Runs a command without a terminal; with `check`, a failure shows its output."""
    parts = [str(part) for part in command]
    with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
        process = start(
            parts,
            cwd,
            env if env is not None else environment(),
            stdout=stdout.fileno(),
            stderr=stderr.fileno(),
        )
        try:
            status = process.wait(timeout)
        except BaseException:
            process.kill()
            process.wait()
            raise
        stdout.seek(0)
        stderr.seek(0)
        result = subprocess.CompletedProcess(
            parts, status, stdout.read(), stderr.read()
        )
    if check and result.returncode != 0:
        raise AssertionError(
            f"{' '.join(map(str, command))} ended with {result.returncode}:\n"
            f"{result.stdout}\n{result.stderr}"
        )
    return result


def start(
    command: Sequence[str],
    folder: Path,
    env: Mapping[str, str],
    *,
    stdout: int,
    stderr: int,
    session: bool = False,
) -> "subprocess.Popen[bytes] | Fork":
    """Starts a command without a terminal, as a fork if it may be one.

    Args:
        session: Whether it gets a session of its own.
    """
    return FORKS.start(
        command, folder, env, stdout=stdout, stderr=stderr, session=session
    ) or subprocess.Popen(
        command,
        cwd=folder,
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=session,
    )


def wait_for(condition: Callable[[], Any], *, what: str, timeout: float = 60) -> Any:
    """Returns the first true result of `condition`, which is called every 50 ms.

    Args:
        timeout: Seconds after which the test fails. The default leaves room for a busy
            machine; a test about a delay sets up one that would last longer than this.
    """
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout} s")
        time.sleep(0.05)
    return result
