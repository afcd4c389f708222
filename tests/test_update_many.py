"""`chancy-workers update` brings every service of a backend to the newest release."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .releases import WORKING_TREE, commit_all, make_template, read_files
from .support import commit, copy, environment, run

PROGRAM = Path(sys.executable).with_name("chancy-workers")
NEXT = "v99.1.0"
SERVICES = ("billing", "orders", "shipping", "users")
HOOKS = "workers/chancy_hooks.py"


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree, and a release after it that changes one line of the machinery."""
    folder = make_template(tmp_path_factory.mktemp("releases") / "template")
    hooks = folder / "template" / "{{ service_root }}" / HOOKS
    _, rest = hooks.read_text().split("\n", 1)
    hooks.write_text(f'"""Hooks, as the next release has them."""\n{rest}')
    commit_all(folder)
    run("git", "tag", NEXT, cwd=folder)
    return folder


@pytest.fixture(scope="session")
def four_services(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backend with four services, one of them current already."""
    root = tmp_path_factory.mktemp("four") / "backend"
    root.mkdir()
    (root / "pyproject.toml").touch()
    for name in SERVICES:
        version = NEXT if name == "users" else WORKING_TREE
        copy(f"app/{name}", f"--vcs-ref={version}", cwd=root, template=template)
    commit(root)
    return root


@pytest.fixture
def root(four_services: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(four_services, tmp_path / "backend"))


def status(root: Path) -> list[str]:
    return run("git", "status", "--porcelain", cwd=root).stdout.splitlines()


def rows(printed: str) -> dict[str, list[str]]:
    """The table at the end, by the service."""
    table = printed.split("\n\n")[-1].splitlines()[1:]
    lines = [re.split("  +", line) for line in table if line.startswith("app/")]
    return {name: cells for name, *cells in lines}


def test_each_service_is_updated_and_the_table_tells_what_became_of_it(
    root: Path,
) -> None:
    conflicting = root / "app" / "orders" / HOOKS
    conflicting.write_text('"""Hooks of the team\'s."""\n' + conflicting.read_text())
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
            "conflict in app/orders/workers/chancy_hooks.py",
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
    assert "as the next release" in (root / "app" / "billing" / HOOKS).read_text()
    assert "UU app/orders/workers/chancy_hooks.py" in status(root)


def test_once_all_are_current_nothing_changes_and_the_status_is_0(root: Path) -> None:
    run(PROGRAM, "update", cwd=root)
    commit_all(root)

    printed = run(PROGRAM, "update", cwd=root).stdout

    assert {row[-1] for row in rows(printed).values()} == {"current"}
    assert status(root) == []


def test_a_conflict_of_an_update_is_one_for_git(root: Path) -> None:
    path = root / "app" / "orders" / HOOKS
    path.write_text(path.read_text().replace('"""Hooks', '"""The hooks', 1))
    commit_all(root)

    run(PROGRAM, "update", "app/orders", cwd=root, check=False)

    assert "<<<<<<< before updating" in path.read_text()
    run("git", "checkout", "--ours", "--", path, cwd=root)
    assert '"""The hooks' in path.read_text()
    run("git", "checkout", "--theirs", "--", path, cwd=root)
    assert "as the next release" in path.read_text()


def test_an_answers_file_that_is_no_yaml_stops_only_its_own_service(root: Path) -> None:
    (root / "app" / "billing" / ".copier-answers.yml").write_text("jobs: [")
    commit_all(root)

    result = run(PROGRAM, "update", cwd=root, check=False)

    assert result.returncode == 1
    assert rows(result.stdout)["app/orders"][-1] == "updated"
    refused = rows(result.stdout)["app/billing/.copier-answers.yml"][-1]
    assert refused.endswith("git checkout HEAD -- app/billing/.copier-answers.yml")


def crlf(root: Path) -> None:
    """As a checkout on Windows is: LF in the repository, CRLF in the files."""
    (root / ".gitattributes").write_text("*.py text eol=crlf\n")
    commit_all(root)
    run("git", "rm", "-r", "-q", "--cached", ".", cwd=root)
    run("git", "reset", "--hard", "-q", cwd=root)
    assert b"\r\n" in (root / "app" / "billing" / HOOKS).read_bytes()


@pytest.fixture(
    params=["detached", "worktree", "shallow", "submodule", "crlf", "dirty"]
)
def awkward(request: pytest.FixtureRequest, root: Path) -> Iterator[Path]:
    """A checkout that is not the usual one."""
    if request.param == "detached":
        run("git", "checkout", "--quiet", "--detach", cwd=root)
    elif request.param == "worktree":
        run("git", "worktree", "add", "--quiet", "../tree", cwd=root)
        root = root.with_name("tree")
    elif request.param == "shallow":
        commit_all(root)
        run("git", "clone", "-q", "--depth=1", root.as_uri(), "../shallow", cwd=root)
        root = root.with_name("shallow")
    elif request.param == "submodule":
        outer = root.with_name("outer")
        outer.mkdir()
        run("git", "init", "-q", cwd=outer)
        allow = ("-c", "protocol.file.allow=always")
        run("git", *allow, "submodule", "--quiet", "add", root, "inner", cwd=outer)
        root = outer / "inner"
    elif request.param == "crlf":
        crlf(root)
    else:
        (root / "notes.txt").touch()
    yield root


def test_a_checkout_that_is_not_the_usual_one_is_updated_as_well(awkward: Path) -> None:
    run(PROGRAM, "update", "app/billing", cwd=awkward)

    changed = {line[3:] for line in status(awkward)} - {"notes.txt"}
    assert changed == {
        "app/billing/.copier-answers.yml",
        f"app/billing/{HOOKS}",
    }
    difference = run("git", "diff", "--numstat", "--", "*.py", cwd=awkward).stdout
    assert difference == f"1\t1\tapp/billing/{HOOKS}\n"
    lines = (awkward / "app" / "billing" / HOOKS).read_bytes().splitlines(keepends=True)
    assert len({line.endswith(b"\r\n") for line in lines}) == 1


def test_what_cannot_be_updated_is_told_in_one_line_and_left(
    root: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    shutil.copytree(root / "app" / "billing", outside / "app" / "billing")
    (root / "app" / "billing").rename(root / "app" / "invoices")
    commit_all(root)

    cases = {
        root / "app" / "nothing": "there is no folder",
        root / "app": "holds no workers of this template",
        outside / "app" / "billing": "is in no git repository",
        root / "app" / "invoices": "does not end with the folder's name",
    }
    for folder, reason in cases.items():
        before = status(root)
        result = run(PROGRAM, "update", folder, cwd=tmp_path, check=False)
        assert result.returncode == 1
        assert reason in " ".join((result.stdout + result.stderr).split())
        assert "Traceback" not in result.stderr
        assert status(root) == before


def test_an_update_that_is_killed_leaves_what_git_brings_back(root: Path) -> None:
    """Killed and stopped at moments spread over the whole run."""
    clean = read_files(root)
    for number in range(8):
        process = subprocess.Popen(
            [PROGRAM, "update", "app/billing"],
            cwd=root,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(0.2 + number * 0.35)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL if number % 2 else signal.SIGINT)
        process.wait(30)

        run("git", "checkout", "HEAD", "--", "app/billing", cwd=root)
        run("git", "clean", "-fdq", "app/billing", cwd=root)
        assert read_files(root) == clean
    run(PROGRAM, "update", "app/billing", cwd=root)
