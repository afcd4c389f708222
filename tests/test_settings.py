"""A setting out of its range, or of another type, is named in one line at the start."""

import shutil
import sys
from pathlib import Path

import pytest

from .starts import line_of_failed_start
from .support import environment, run

INITIALIZATION = Path("app/billing/workers/chancy_initialization.py")
URL = "postgresql://u@127.0.0.1:1/d"
RANGES = {
    "shutdown_grace": (1, 3600),
    "heartbeat_timeout": (10, 3600),
    "leader_lease": (10, 3600),
    "poll_interval": (1, 3600),
    "replicas": (1, 1000),
    "pooler_connections": (1, 100_000),
}
# Prints what a Chancy with each of the settings says, an empty line where it is fine.
PROGRAM = """
import sys
from app.billing.workers import chancy_initialization
from app.billing.workers.chancy_settings import Settings

for setting in sys.argv[1:]:
    chancy_initialization.SETTINGS = eval(setting)
    try:
        chancy_initialization.create_chancy()
    except Exception as error:
        print(f"{type(error).__name__} {error}")
    else:
        print()
"""


def said_of(backend: Path, settings: list[str]) -> list[str]:
    result = run(
        *(sys.executable, "-c", PROGRAM, *settings),
        cwd=backend,
        env=environment(WORKERS_DATABASE_URL=URL),
    )
    return result.stdout.splitlines()


@pytest.fixture
def edited(backend: Path, tmp_path: Path) -> Path:
    """A backend of the test's own."""
    folder = tmp_path / "backend"
    shutil.copytree(backend, folder)
    return folder


def edit(folder: Path, old: str, new: str) -> None:
    module = folder / INITIALIZATION
    text = module.read_text()
    assert old in text
    module.write_text(text.replace(old, new))


def test_every_setting_has_a_range_that_is_checked(backend: Path) -> None:
    program = (
        "from dataclasses import fields\n"
        "from app.billing.workers.chancy_settings import Settings\n"
        "print(*(field.name for field in fields(Settings)))"
    )
    names = run(sys.executable, "-c", program, cwd=backend).stdout.split()
    assert names == list(RANGES)

    right, wrong = [], {}
    for name, (lowest, highest) in RANGES.items():
        right += [f"Settings({name}={value})" for value in (lowest, highest)]
        for value in (lowest - 1, highest + 1, str(lowest), lowest + 0.5, True, None):
            wrong[f"Settings({name}={value!r})"] = (
                f"WorkersError {name} is {value!r}, and takes a whole number from "
                f"{lowest} to {highest}: correct it in "
                "app.billing.workers.chancy_initialization"
            )

    assert said_of(backend, [*right, *wrong]) == [*[""] * len(right), *wrong.values()]


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        (
            "Settings()",
            "Settings(shutdown_grace=0)",
            "shutdown_grace is 0, and takes a whole number from 1 to 3600",
        ),
        (
            "Settings()",
            'Settings(replicas="3")',
            "replicas is '3', and takes a whole number from 1 to 1000",
        ),
        (
            "CHANCY_MAX_POOL_SIZE = 10",
            "CHANCY_MAX_POOL_SIZE = 0",
            "CHANCY_MAX_POOL_SIZE is 0, and takes a whole number from 1 to 1000",
        ),
        (
            "CHANCY_MAX_POOL_SIZE = 10",
            "CHANCY_MAX_POOL_SIZE = 3",
            "CHANCY_MIN_POOL_SIZE is 5, and takes a whole number from 1 to 3",
        ),
        (
            "CHANCY_MIN_POOL_SIZE = 5",
            'CHANCY_MIN_POOL_SIZE = "5"',
            "CHANCY_MIN_POOL_SIZE is '5', and takes a whole number from 1 to 10",
        ),
    ],
)
def test_a_wrong_setting_ends_the_start_and_each_command_with_one_line(
    old: str, new: str, line: str, edited: Path
) -> None:
    edit(edited, old, new)

    assert line in line_of_failed_start(edited, URL, within=4)
    status = run(
        *(sys.executable, "-m", "app.billing.workers", "status"),
        cwd=edited,
        env=environment(WORKERS_DATABASE_URL=URL),
        check=False,
    )
    assert status.returncode == 1
    assert status.stderr.count("\n") == 1 and line in status.stderr
