"""A program that tests start as a fork behaves like one in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.commands import environment, run, start, wait_for
from harness.forks import FORKS, Fork

# A module whose name ends in "workers" starts like the commands of a service.
COMMAND = (sys.executable, "-m", "shop.workers")
PROGRAM = """\
import json, os, signal, sys

context = [__name__, __spec__.name, sys.argv, sys.path[0], os.getcwd(), sys.stdin.read()]
print(json.dumps([*context, sorted(os.environ.items())]))
print("to the other stream", file=sys.stderr)
if sys.argv[1:] == ["wait"]:
    print("waits", flush=True)
    signal.pause()
if sys.argv[1:] == ["fail"]:
    raise ValueError("no tea")
sys.exit(7)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop" / "workers").mkdir(parents=True)
    (tmp_path / "shop" / "workers" / "__main__.py").write_text(PROGRAM)
    return tmp_path


@pytest.fixture(params=[True, False], ids=["forked", "plain"])
def forks(request: pytest.FixtureRequest) -> Iterator[bool]:
    was, FORKS.on = FORKS.on, bool(request.param)
    yield FORKS.on
    FORKS.on = was


def test_it_has_the_same_environment_and_output(folder: Path, forks: bool) -> None:
    env = environment(TEA="é")

    ended = run(*COMMAND, "a b", cwd=folder, env=env, check=False)

    main = str(folder / "shop" / "workers" / "__main__.py")
    *context, seen = json.loads(ended.stdout)
    assert context == [
        *("__main__", "shop.workers.__main__", [main, "a b"]),
        *(str(folder), str(folder), ""),
    ]
    # Sentry's SDK adds variables of its own if another test has set it up in this process.
    of_sentry = {"SUBPROCESS_BAGGAGE", "SUBPROCESS_SENTRY_TRACE"}
    assert {name: value for name, value in seen if name not in of_sentry} == env
    assert (ended.returncode, ended.stderr) == (7, "to the other stream\n")


def test_an_error_is_a_traceback_and_the_status_1(folder: Path, forks: bool) -> None:
    forked = run(*COMMAND, "fail", cwd=folder, check=False)

    assert forked.returncode == 1
    assert forked.stderr.endswith("\nValueError: no tea\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_has_the_status_of_subprocess(
    number: int, folder: Path, forks: bool
) -> None:
    log = folder / "log"
    with log.open("wb") as stream:
        where = {"stdout": stream.fileno(), "stderr": stream.fileno()}
        process = start(
            [*COMMAND, "wait"], folder, environment(), session=True, **where
        )
    wait_for(lambda: "waits" in log.read_text(), what="the program")

    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    assert os.getsid(process.pid) == process.pid
    process.send_signal(number)

    assert process.wait(60) == -number == process.returncode


def test_a_program_is_not_forked_if_its_environment_changes_python(
    folder: Path,
) -> None:
    with (folder / "log").open("wb") as stream:
        process = start(
            COMMAND,
            folder,
            environment(PYTHONPATH="elsewhere"),
            stdout=stream.fileno(),
            stderr=stream.fileno(),
        )

    assert not isinstance(process, Fork)
    assert process.wait(60) == 7


@pytest.mark.parametrize(
    "command",
    [
        *(["-m", "copier", "--version"], ["-m", "copier", "copy", "nowhere", "here"]),
        *(["-c", "import sys; print(sys.argv)", "a b"], ["-m", "site", "--user-base"]),
    ],
    ids=" ".join,
)
def test_python_in_a_fork_of_chancy_workers_ends_like_python(
    command: list[str], tmp_path: Path
) -> None:
    forked, plain = (
        subprocess.run(
            [python, *command],
            cwd=tmp_path,
            env=environment(TEA="é"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        for python in (FORKS.python(), sys.executable)
    )

    assert forked.returncode == plain.returncode
    assert forked.stdout == plain.stdout
    assert forked.stderr.splitlines()[-1:] == plain.stderr.splitlines()[-1:]
