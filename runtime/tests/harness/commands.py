"""Commands that tests run, and waiting for what they do."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# What a person may have set, and what would lead a test to a database of theirs.
PRIVATE = re.compile(
    "WORKERS_|POSTGRES_|PG|SENTRY_|AZURE_|LOG_LEVEL|VIRTUAL_ENV|PYTEST_"
)


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without anything that could lead to a real service."""
    kept = {
        name: value for name, value in os.environ.items() if not PRIVATE.match(name)
    }
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", **variables}


def run(
    *command: str | Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Runs a command without a terminal; with `check`, its output is in the failure."""
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=dict(env) if env is not None else environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if check and result.returncode != 0:
        raise AssertionError(
            f"{' '.join(map(str, command))} ended with {result.returncode}:\n"
            f"{result.stdout}\n{result.stderr}"
        )
    return result


def wait_for(condition: Callable[[], Any], *, timeout: float, what: str) -> Any:
    """Returns the first true result of `condition`, which is asked every 50 ms."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout} s")
        time.sleep(0.05)
    return result
