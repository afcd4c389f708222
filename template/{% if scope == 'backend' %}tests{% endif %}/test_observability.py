"""Every event is one line on standard output."""

import subprocess
import sys

PROGRAM = """
import logging
from app.observability import configure_logging
configure_logging()
logging.getLogger("app.some.workers").info("a line of Chancy")
logging.getLogger("uvicorn.access").info("a request")
try:
    1 / 0
except ZeroDivisionError:
    logging.getLogger("app").exception("it failed")
"""


def run(level: str) -> list[str]:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={"LOG_LEVEL": level, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stderr == ""
    return result.stdout.splitlines()


def test_each_event_is_one_line() -> None:
    line, request, failure = run("info")

    assert line.endswith("INFO app.some.workers: a line of Chancy")
    assert request.endswith("INFO uvicorn.access: a request")
    assert failure.endswith("ZeroDivisionError: division by zero")


def test_the_environment_sets_the_level() -> None:
    assert len(run("error")) == 1
    assert len(run("")) == 3


def test_an_unknown_level_is_reported_and_info_is_used() -> None:
    line, *events = run("loud")

    assert "LOG_LEVEL is 'LOUD', which is not a level" in line
    assert len(events) == 3
