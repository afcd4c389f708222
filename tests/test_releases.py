"""The requirements of a release; CONTRIBUTING.md explains how to make one."""

import re
import tomllib

import pytest

from .releases import RELEASES
from .support import TEMPLATE, run

RENDERED = ("template", "tasks", "questions", "copier.yml")


@pytest.fixture
def entries() -> list[str]:
    """The versions that have an entry in CHANGELOG.md, the oldest first."""
    text = (TEMPLATE / "CHANGELOG.md").read_text()
    return re.findall(r"^## (v\d+\.\d+\.\d+)", text, re.M)[::-1]


def test_every_release_of_the_changelog_has_a_commit(entries: list[str]) -> None:
    assert RELEASES, "no release is in the history: fetch all of it"
    assert list(RELEASES) == entries[: len(RELEASES)]
    next_ones = entries[len(RELEASES) :]
    assert len(next_ones) <= 1, f"no commit is the release of {next_ones[0]}"


def test_changes_that_teams_will_see_have_an_entry(entries: list[str]) -> None:
    newest = list(RELEASES)[-1]
    changed = run(
        "git", "diff", "--name-only", RELEASES[newest], "--", *RENDERED, cwd=TEMPLATE
    ).stdout
    new = run(
        "git", "ls-files", "-o", "--exclude-standard", "--", *RENDERED, cwd=TEMPLATE
    ).stdout
    if changed or new:
        assert entries[-1] != newest, f"no entry after {newest} says what changed"


def test_the_package_has_the_version_of_the_newest_or_the_next_release(
    entries: list[str],
) -> None:
    project = tomllib.loads((TEMPLATE / "pyproject.toml").read_text())["project"]
    assert f"v{project['version']}" in entries[len(RELEASES) - 1 :]
