"""A setting out of its range, or of another type, is named in one line at the start."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from chancy_runtime import Settings, WorkersError

from harness.recorder import Recorder, plain_chancy, recorder
from harness.starts import line_of_failed_start

URL = "postgresql://u@127.0.0.1:1/d"
RANGES = {
    "shutdown_grace": (1, 3600),
    "heartbeat_timeout": (10, 3600),
    "leader_lease": (10, 3600),
    "poll_interval": (1, 3600),
    "replicas": (1, 1000),
    "pooler_connections": (1, 100_000),
    "retry_wait": (0, 3600),
    "retry_limit": (0, 86_400),
}


def test_every_setting_has_a_range() -> None:
    without = ["only_registered", "also_registered"]
    assert [field.name for field in fields(Settings)] == [*RANGES, *without]


@pytest.mark.parametrize("name", RANGES)
def test_the_range_is_checked_with_its_type(name: str) -> None:
    lowest, highest = RANGES[name]
    for value in (lowest, highest):
        settings: dict[str, Any] = {name: value}
        plain_chancy(URL, settings=Settings(**settings))

    wrong: list[Any] = [lowest - 1, highest + 1, str(lowest), lowest + 0.5, True, None]
    for each in wrong:
        with pytest.raises(WorkersError) as error:
            plain_chancy(URL, settings=Settings(**{name: each}))
        assert str(error.value) == (
            f"{name} is {each!r}, but must be a whole number from {lowest} to {highest}: "
            "correct it in app.billing.workers"
        )


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("only_registered", "yes", "True or False"),
        ("only_registered", 1, "True or False"),
        ("also_registered", "app.common", "a list of import paths"),
        ("also_registered", ["app.common.*"], "a list of import paths"),
        ("also_registered", ["app/common.py"], "a list of import paths"),
        ("also_registered", [""], "a list of import paths"),
        ("also_registered", [len], "a list of import paths"),
    ],
)
def test_settings_about_registered_functions_are_checked_too(
    name: str, value: Any, wanted: str
) -> None:
    with pytest.raises(WorkersError) as error:
        plain_chancy(URL, settings=Settings(**{name: value}))

    line = str(error.value)
    assert line.startswith(f"{name} is {value!r}, but must be {wanted}")
    assert line.endswith("correct it in app.billing.workers")


@pytest.mark.parametrize(
    ("sizes", "line"),
    [
        ((5, 0), "MAX_POOL_SIZE is 0, but must be a whole number from 1 to 1000"),
        ((5, 3), "MIN_POOL_SIZE is 5, but must be a whole number from 1 to 3"),
        (("5", 10), "MIN_POOL_SIZE is '5', but must be a whole number from 1 to 10"),
    ],
)
def test_sizes_of_the_pool_are_checked_too(
    sizes: tuple[object, object], line: str
) -> None:
    smallest, largest = sizes
    with pytest.raises(WorkersError, match=f"CHANCY_{line}"):
        plain_chancy(
            URL,
            min_connection_pool_size=smallest,
            max_connection_pool_size=largest,
        )


def test_a_wrong_setting_ends_the_start_and_each_command_with_one_line(
    tmp_path: Path,
) -> None:
    edited: Recorder = recorder(
        tmp_path / "backend", settings="Settings(shutdown_grace=0)"
    )
    line = (
        "shutdown_grace is 0, but must be a whole number from 1 to 3600: "
        "correct it in app.billing.workers"
    )

    assert line in line_of_failed_start(edited, URL)
    for command in ("status", "migrate"):
        result = edited.command(command, url=URL, check=False)
        assert result.returncode == 1
        assert result.stderr.count("\n") == 1 and line in result.stderr
