"""Measures how much the wiring adds to a `copier copy`.

    uv run python benchmarks/wiring.py [--rounds N]

Each round copies into a fresh backend without tasks, runs the task alone on the same file
like Copier does, and copies with tasks. They take turns in one run, so that a busy machine
slows all of them; the figures are medians.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TEMPLATE = Path(__file__).parents[1]
COPIER = [sys.executable, "-m", "copier", "copy", "--defaults", "--quiet"]
TASK = [sys.executable, "-I", str(TEMPLATE / "tasks" / "wire_lifespan"), "--task=copy"]
MAIN = '''\
"""The billing service."""

from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    app.state.cache = {}
    try:
        yield
    finally:
        app.state.cache.clear()


app = FastAPI(lifespan=lifespan)
'''


def main() -> None:
    """Prints the medians and the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    task = ["--service=billing", "--package=app.billing", "--app=", "main.py"]
    without, alone, whole = [], [], []
    for _ in range(rounds):
        without.append(_seconds([*COPIER, "--skip-tasks"], "app/billing"))
        alone.append(_seconds([*TASK, *task], folder="app/billing"))
        whole.append(_seconds([*COPIER, "--trust"], "app/billing"))
    copying, wiring = statistics.median(without), statistics.median(alone)
    print(f"copier copy without tasks  {copying * 1000:6.0f} ms")
    print(f"copier copy with the task  {statistics.median(whole) * 1000:6.0f} ms")
    print(f"the task alone             {wiring * 1000:6.0f} ms")
    print(f"the task / a copy          {wiring / copying:6.1%}")


def _seconds(command: list[str], *arguments: str, folder: str = ".") -> float:
    """Returns how long a command takes in a new backend with one service."""
    with tempfile.TemporaryDirectory() as scratch:
        service = Path(scratch, "app", "billing")
        service.mkdir(parents=True)
        Path(scratch, "pyproject.toml").touch()
        (service / "main.py").write_text(MAIN)
        if not arguments:  # The state that a render leaves for the task.
            (service / "workers").mkdir()
            (service / "workers" / "chancy_initialization.py").touch()
        if arguments:
            arguments = ("--vcs-ref=HEAD", str(TEMPLATE), *arguments)
        began = time.perf_counter()
        subprocess.run(
            [*command, *arguments],
            cwd=Path(scratch, folder),
            check=True,
            capture_output=True,
        )
        took = time.perf_counter() - began
        is_wired = "initialize_workers" in (service / "main.py").read_text()
        assert is_wired == ("--skip-tasks" not in command), command
        return took


if __name__ == "__main__":
    main()
