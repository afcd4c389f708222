"""The one documented command undoes an update that is stopped at any moment."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from . import edits
from .releases import INSTANCE, WORKING_TREE, commit_all, read_files
from .shared import Shared
from .support import COPIER, PROGRAM, TEMPLATE, commit, copy, environment, run, wait_for

UNDO = re.compile(r"git checkout HEAD -- (\S+) && git clean -fd \1(?=`)")
# Every Python imports it: kills the process at the rename of a certain file, or fails it.
AT_RENAME = """\
import os
import signal

renames = []


def replace(source, target, replace=os.replace):
    if str(source).endswith(".new"):
        renames.append(source)
        if len(renames) == int(os.environ["AT_RENAME"]):
            if "FAIL" in os.environ:
                raise PermissionError(1, "Operation not permitted", source, None, target)
            os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)


os.replace = replace
"""
# Every Python imports it: Copier waits after it made its folder, so that a signal always
# arrives in the middle of its run, even on a busy machine.
IN_COPIER = """\
import tempfile
import time


def mkdtemp(*arguments, make=tempfile.mkdtemp, **options):
    folder = make(*arguments, **options)
    while "/copier._main." in folder:
        time.sleep(60)
    return folder


tempfile.mkdtemp = mkdtemp
"""


@pytest.fixture(scope="session")
def rendered_root(next_release: Path, shared: Shared) -> Callable[[str], Path]:
    def render(scope: str) -> Path:
        def make(root: Path) -> None:
            root.mkdir()
            project = root if scope == "backend" else root / "app" / "billing"
            options = (f"--vcs-ref={WORKING_TREE}", f"--data=scope={scope}")
            copy(project, *options, cwd=root, template=next_release)
            commit(root)

        return shared.folder(f"{scope}/root", make)

    return render


class Checkout:
    """A backend, its update, and the command that undoes an update."""

    def __init__(self, root: Path, scope: str, program: str) -> None:
        self.root = root
        self.clean = read_files(root)
        self.folder = "." if scope == "backend" else "app/billing"
        self.command: list[str | Path] = (
            [*COPIER, "update", "--trust", "--defaults", self.folder]
            if program == "copier"
            else [PROGRAM, "update"]
        )
        self.scratch = root.with_name("scratch")
        self.scratch.mkdir()
        self.instance = root / "app" / "billing" / INSTANCE

    def edit(self) -> None:
        """Commits an edit that conflicts with the update."""
        edits.edit_what_the_next_release_changes(self.instance.parents[1])
        commit_all(self.root)
        self.clean = read_files(self.root)

    def start(self, **variables: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self.command,
            cwd=self.root,
            env=environment(TMPDIR=str(self.scratch), **variables),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # Shells ignore SIGINT in background jobs, and children inherit that.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        )

    def undo(self) -> None:
        """Runs the command; makes sure that nothing of the update is left."""
        (command,) = {
            match[0]
            for match in UNDO.finditer((TEMPLATE / "README.md").read_text())
            if match[1] == self.folder
        }
        run("bash", "-c", command, cwd=self.root)
        assert run("git", "status", "--short", "--ignored", cwd=self.root).stdout == ""
        assert read_files(self.root) == self.clean


@pytest.fixture
def checkout(
    request: pytest.FixtureRequest,
    rendered_root: Callable[[str], Path],
    tmp_path: Path,
) -> Checkout:
    scope, program = request.param
    root = Path(shutil.copytree(rendered_root(scope), tmp_path / "root"))
    return Checkout(root, scope, program)


BOTH = pytest.mark.parametrize(
    "checkout",
    [
        pytest.param(pair, id="-".join(pair), marks=pytest.mark.xdist_group(pair[0]))
        for pair in (("service", "chancy-workers"), ("backend", "copier"))
    ],
    indirect=True,
)


@BOTH
@pytest.mark.parametrize(
    "moments", [2, pytest.param(20, marks=pytest.mark.slow)], ids=str
)
def test_an_update_stopped_at_moments_over_its_whole_run_can_be_undone(
    checkout: Checkout, moments: int
) -> None:
    began = time.monotonic()
    process = checkout.start()
    printed, _ = process.communicate(timeout=60)
    took = time.monotonic() - began
    assert process.returncode == 0, printed
    assert "as the next release" in checkout.instance.read_text()
    checkout.undo()

    for number in (signal.SIGKILL, signal.SIGINT):
        stopped = 0
        for moment in range(moments):
            process = checkout.start()
            try:
                process.wait(took * (moment + 1 / 2) / moments)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, number)
                stopped += 1
            process.communicate(timeout=60)
            checkout.undo()
        assert stopped >= moments / 2


@BOTH
def test_an_update_stopped_while_it_writes_files_can_be_undone(
    checkout: Checkout,
) -> None:
    checkout.edit()
    before = checkout.instance.read_bytes()
    process = checkout.start(AT_RENAME="2", PYTHONPATH=str(at_rename(checkout.scratch)))
    if checkout.command[0] != PROGRAM:
        wait_for(
            lambda: checkout.instance.read_bytes() != before,
            what="the first change",
        )
        os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    process.communicate()

    status = run("git", "status", "--short", cwd=checkout.root).stdout
    assert " M " in status
    checkout.undo()
    run(*checkout.command, cwd=checkout.root, check=False)
    assert "<<<<<<< before updating" in checkout.instance.read_text()


def at_rename(folder: Path) -> Path:
    (folder / "sitecustomize.py").write_text(AT_RENAME)
    return folder


@pytest.mark.parametrize(
    "checkout", [("service", "chancy-workers")], ids=["service"], indirect=True
)
def test_ctrl_c_prints_one_line_and_leaves_no_scratch_folder(
    checkout: Checkout, tmp_path: Path
) -> None:
    folder = tmp_path / "hook"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(IN_COPIER)
    process = checkout.start(PYTHONPATH=str(folder))
    wait_for(
        lambda: [*checkout.scratch.glob("chancy-workers-*/copier._main.*")],
        what="the start of Copier",
    )
    os.kill(process.pid, signal.SIGINT)

    printed, _ = process.communicate(timeout=60)

    assert printed == "chancy-workers: stopped; git status shows what was written\n"
    assert process.returncode == 130
    assert [*checkout.scratch.iterdir()] == []
    assert read_files(checkout.root) == checkout.clean


@pytest.mark.parametrize(
    "checkout", [("service", "chancy-workers")], ids=["service"], indirect=True
)
def test_if_a_file_cannot_be_replaced_all_changes_are_undone(
    checkout: Checkout,
) -> None:
    """There is a conflict, and the first file is already replaced."""
    checkout.edit()
    folder = at_rename(checkout.scratch)

    process = checkout.start(AT_RENAME="2", FAIL="yes", PYTHONPATH=str(folder))

    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "cannot be replaced (Operation not permitted): correct that" in printed
    assert read_files(checkout.root) == checkout.clean
    assert run("git", "status", "--short", "--ignored", cwd=checkout.root).stdout == ""


@pytest.mark.parametrize("in_the_way", [f".{Path(INSTANCE).name}.new", "index.lock"])
@pytest.mark.parametrize(
    "checkout", [("service", "chancy-workers")], ids=["service"], indirect=True
)
def test_a_file_that_cannot_be_written_is_reported_before_anything_changes(
    in_the_way: str, checkout: Checkout
) -> None:
    """The file in the way may be the team's, and git may ignore it."""
    (checkout.root / ".gitignore").write_text("*.new\n")
    checkout.edit()
    folder = checkout.instance.parent
    path = (checkout.root / ".git" if "lock" in in_the_way else folder) / in_the_way
    path.write_text("the team's")

    result = run(*checkout.command, cwd=checkout.root, check=False)

    assert result.returncode == 1
    assert "refused: " in result.stdout and in_the_way in result.stdout
    assert path.read_text() == "the team's"
    path.unlink()
    assert read_files(checkout.root) == checkout.clean
    assert run("git", "status", "--short", "--ignored", cwd=checkout.root).stdout == ""
