"""`chancy-workers update` brings every service of a backend to the newest release."""

import re
import shutil
from pathlib import Path

import pytest

from . import edits
from .releases import (
    INSTANCE,
    NEXT,
    WORKING_TREE,
    commit_all,
    read_files,
)
from .shared import Shared
from .support import PROGRAM, commit, copy, run

SERVICES = ("billing", "orders", "shipping", "users")


@pytest.fixture(scope="session")
def four_services(next_release: Path, shared: Shared) -> Path:
    """A backend with four services, of which one is already current."""

    def make(root: Path) -> None:
        root.mkdir()
        (root / "pyproject.toml").touch()
        for name in SERVICES:
            version = NEXT if name == "users" else WORKING_TREE
            copy(f"app/{name}", f"--vcs-ref={version}", cwd=root, template=next_release)
        commit(root)

    return shared.folder("four services/backend", make)


@pytest.fixture
def root(four_services: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(four_services, tmp_path / "backend"))


def status(root: Path) -> list[str]:
    return run("git", "status", "--porcelain", cwd=root).stdout.splitlines()


def rows(printed: str) -> dict[str, list[str]]:
    """The rows of the table at the end, by service."""
    table = printed.split("\n\n")[-1].splitlines()[1:]
    lines = [re.split("  +", line) for line in table if line.startswith("app/")]
    return {name: cells for name, *cells in lines}


def test_each_service_is_updated_and_the_table_shows_its_result(
    root: Path,
) -> None:
    conflicting = root / "app" / "orders" / INSTANCE
    conflicting.write_text('"""The team\'s."""\n' + conflicting.read_text())
    commit_all(root)
    dirty = root / "app" / "shipping" / "notes.txt"
    dirty.touch()
    before = read_files(root / "app" / "shipping")

    result = run(PROGRAM, "update", cwd=root, check=False)

    assert result.returncode == 1
    assert rows(result.stdout) == {
        "app/billing": [WORKING_TREE, NEXT, "updated"],
        "app/orders": [
            WORKING_TREE,
            NEXT,
            "conflict in app/orders/workers/chancy_instance.py",
        ],
        "app/shipping": [
            WORKING_TREE,
            WORKING_TREE,
            "refused: uncommitted changes in app/shipping/notes.txt: commit or stash "
            "them, then run this again",
        ],
        "app/users": [NEXT, NEXT, "current"],
    }
    assert read_files(root / "app" / "shipping") == before
    assert "as the next release" in (root / "app" / "billing" / INSTANCE).read_text()
    assert "UU app/orders/workers/chancy_instance.py" in status(root)


def test_if_all_services_are_current_nothing_changes_and_the_status_is_0(
    root: Path,
) -> None:
    run(PROGRAM, "update", cwd=root)
    commit_all(root)

    printed = run(PROGRAM, "update", cwd=root).stdout
    twice = run(PROGRAM, "update", "app/billing", "app/billing/workers", cwd=root)

    assert {row[-1] for row in rows(printed).values()} == {"current"}
    assert twice.stdout.count("\napp/billing ") == 1
    assert status(root) == []


def test_git_also_knows_the_conflict_of_an_update(root: Path) -> None:
    path = root / "app" / "orders" / INSTANCE
    edits.edit_what_the_next_release_changes(root / "app" / "orders")
    commit_all(root)

    run(PROGRAM, "update", "app/orders", cwd=root, check=False)

    assert "<<<<<<< before updating" in path.read_text()
    run("git", "checkout", "--ours", "--", path, cwd=root)
    assert '"""It holds' in path.read_text()
    run("git", "checkout", "--theirs", "--", path, cwd=root)
    assert "as the next release" in path.read_text()


def test_an_answers_file_that_is_not_yaml_stops_only_its_own_service(
    root: Path,
) -> None:
    (root / "app" / "billing" / ".copier-answers.yml").write_text("jobs: [")
    commit_all(root)

    result = run(PROGRAM, "update", cwd=root, check=False)

    assert result.returncode == 1
    assert rows(result.stdout)["app/orders"][-1] == "updated"
    refused = rows(result.stdout)["app/billing/.copier-answers.yml"][-1]
    assert refused.endswith("explains conflicts), and commit")


def test_a_folder_that_cannot_be_updated_is_reported_in_one_line(
    root: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(root / "app" / "billing", outside / "app" / "billing")

    cases = {
        root / "app" / "nothing": "there is no folder",
        root / "app": "has no workers of this template",
        outside / "app" / "billing": "is not in a git repository",
    }
    for folder, reason in cases.items():
        before = status(root)
        result = run(PROGRAM, "update", folder, cwd=tmp_path, check=False)
        assert result.returncode == 1
        assert reason in " ".join((result.stdout + result.stderr).split())
        assert "Traceback" not in result.stderr
        assert status(root) == before
