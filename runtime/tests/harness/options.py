"""Options of both suites: --slow and --soak run the tests that take minutes."""

import random

import pytest

from harness.forks import FORKS


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slow", action="store_true", help="also run the tests that take minutes"
    )
    parser.addoption("--soak", default=0, help="minutes of faults and jobs, 0 for none")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Chooses how programs start, and one seed for hypothesis in all workers."""
    FORKS.on = not config.option.slow
    if config.option.hypothesis_seed is None:
        config.option.hypothesis_seed = str(random.randrange(2**32))


def pytest_unconfigure() -> None:
    FORKS.stop()


def pytest_report_header(config: pytest.Config) -> str:
    return f"to repeat with the same examples: --hypothesis-seed={config.option.hypothesis_seed}"


def pytest_collection_modifyitems(
    config: pytest.Config, items: list[pytest.Item]
) -> None:
    """Skips the slow tests without --slow, and the soak without --soak."""
    left = {name for name in ("slow", "soak") if not config.getoption(f"--{name}")}
    out = [item for item in items if left & {mark.name for mark in item.iter_markers()}]
    config.hook.pytest_deselected(items=out)
    items[:] = [item for item in items if item not in out]
