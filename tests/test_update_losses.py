"""Situations in which git would leave edits out of an update do not lose them."""

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from . import edits
from .checkouts import ANSWERS, BILLING, FIRST, UPDATES, make_root
from .releases import INSTANCE, NEXT, WORKING_TREE, commit_all, read_files
from .shared import Shared
from .support import (
    COPIER,
    GIT,
    PROGRAM,
    TEMPLATE,
    commit,
    copy,
    environment,
    run,
)

MODULE = f"{BILLING}/workers/__main__.py"


@pytest.fixture(scope="module")
def edited(next_release: Path, shared: Shared) -> Path:
    """A service with edits, of which one is in lines that the next release changes."""

    def make(folder: Path) -> None:
        root = make_root(folder, next_release, WORKING_TREE)
        with (root / MODULE).open("a") as stream:
            stream.write('\n\nTEXT = """blanks at the end   \n"""\n')
        (root / BILLING / "NOTES.md").write_text("blanks at the end   \n")
        edits.edit_what_the_next_release_changes(root / BILLING)
        commit_all(root)

    return shared.folder("edited service", make) / "backend"


@pytest.fixture
def root(edited: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(edited, tmp_path / "backend"))


def write_hook(folder: Path, name: str) -> Path:
    hooks = folder / "hooks"
    hooks.mkdir(exist_ok=True)
    (hooks / name).write_text("#!/bin/sh\necho no ticket >&2\nexit 1\n")
    (hooks / name).chmod(0o755)
    return hooks


def configure(folder: Path, section: str, setting: str) -> dict[str, str]:
    """The environment of a user with one git setting."""
    path = folder / "gitconfig"
    path.write_text(f"[{section}]\n\t{setting}\n")
    return environment(GIT_CONFIG_GLOBAL=str(path))


IGNORED = "__main__.py\nconftest.py\n"
# A user's configuration; each line hides a committed edit, in files that `hide` writes.
HIDING = """\
[core]
\texcludesFile = {folder}/ignored
\tattributesFile = {folder}/attributes
\tbigFileThreshold = 1
\tautocrlf = true
\tsafecrlf = true
[init]
\ttemplateDir = {folder}/new
\tdefaultObjectFormat = sha256
[diff "lines"]
\tbinary = true
[commit]
\tgpgsign = true
[gpg]
\tprogram = false
[merge]
\tconflictStyle = zdiff3
[diff]
\tnoprefix = true
\texternal = false
[url "{template}"]
\tinsteadOf = {url}
"""
# The template's URL in the answers, which the user's configuration redirects.
URL = "https://git.example.invalid/chancy-workers.git"


def hide(folder: Path) -> None:
    """Writes files that a user's configuration may name."""
    for name, text in {
        "ignored": IGNORED,
        "included": f"[core]\n\texcludesFile = {folder}/ignored\n",
        "attributes": "*.py diff=lines\n",
        "new/info/exclude": IGNORED,
        "attr/info/attributes": "*.py binary\n",
        "new/config": "[core]\n\tfileMode = false\n",
        "home/git/ignore": IGNORED,
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    shutil.copytree(write_hook(folder, "prepare-commit-msg"), folder / "new" / "hooks")


def delete_conftest(root: Path) -> None:
    (root / BILLING / "workers" / "tests" / "conftest.py").unlink()
    commit_all(root)


def test_chancy_workers_uses_only_the_git_settings_that_reach_the_template(
    root: Path, next_release: Path, tmp_path: Path
) -> None:
    hide(tmp_path)
    text = HIDING.format(folder=tmp_path, template=next_release, url=URL)
    (tmp_path / "gitconfig").write_text(text)
    edits.change_answers(root / BILLING, _src_path=URL)
    delete_conftest(root)
    before = (root / MODULE).read_bytes()
    env = environment(
        COPIER_CACHE_DIR=str(tmp_path / "cache"),
        GIT_CONFIG_GLOBAL=str(tmp_path / "gitconfig"),
        GIT_CONFIG_PARAMETERS=f"'core.excludesfile={tmp_path}/ignored'",
        GIT_DEFAULT_HASH="sha256",
        GIT_LITERAL_PATHSPECS="1",
        GIT_TEMPLATE_DIR=str(tmp_path / "attr"),
        XDG_CONFIG_HOME=str(tmp_path / "home"),
    )

    result = run(PROGRAM, "update", BILLING, cwd=root, env=env, check=False)

    assert f"conflict in {BILLING}/{INSTANCE}" in result.stdout, result.stderr
    assert "<<<<<<< before updating" in (root / BILLING / INSTANCE).read_text()
    assert (root / MODULE).read_bytes() == before
    assert not (root / BILLING / "workers" / "tests" / "conftest.py").exists()


REFUSE: list[str | Path] = [
    sys.executable,
    TEMPLATE / "tasks" / "refuse_update.py",
    ANSWERS,
]
REMOVE = "would be lost: remove "


@pytest.mark.parametrize(
    ("variables", "setting", "reason"),
    [
        (
            {},
            "core.excludesFile={folder}/ignored",
            "({folder}/ignored:1:__main__.py)",
        ),
        (
            {"XDG_CONFIG_HOME": "{folder}/home"},
            "",
            "({folder}/home/git/ignore:1:",
        ),
        (
            {},
            "init.templateDir={folder}/new",
            "(info/exclude below init.templateDir:1:",
        ),
        (
            {"GIT_TEMPLATE_DIR": "{folder}/attr"},
            "",
            "for binary in every new repository",
        ),
        (
            {},
            "includeIf.gitdir:copier*/.path={folder}/included",
            "({folder}/ignored:1:__main__.py)",
        ),
        ({}, "core.bigFileThreshold=1", "for binary in every new repository"),
    ],
)
def test_files_that_a_user_s_git_settings_hide_from_copier_are_reported(
    variables: dict[str, str],
    setting: str,
    reason: str,
    root: Path,
    next_release: Path,
    tmp_path: Path,
) -> None:
    hide(tmp_path)
    given = {name: value.format(folder=tmp_path) for name, value in variables.items()}
    name, _, value = setting.format(folder=tmp_path).partition("=")
    if name:
        given |= {
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": name,
            "GIT_CONFIG_VALUE_0": value,
        }

    env = environment(**given)
    result = run(*REFUSE, next_release, cwd=root / BILLING, env=env, check=False)

    assert result.returncode == 1
    assert result.stderr.startswith("nothing is updated: git "), result.stderr
    assert f"{MODULE} " in result.stderr or "__init__.py" in result.stderr
    assert reason.format(folder=tmp_path) in result.stderr
    assert REMOVE in result.stderr and result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("section", "setting"),
    [
        ("apply", "whitespace = error"),
        ("apply", "whitespace = fix"),
        ("status", "showUntrackedFiles = no"),
        ("core", "attributesFile = {attributes}"),
        ("core", "hooksPath = {hooks}"),
    ],
)
def test_chancy_workers_ignores_the_settings_of_a_user(
    section: str, setting: str, root: Path, tmp_path: Path
) -> None:
    attributes = tmp_path / "attributes"
    attributes.write_text("*.py binary\n")
    for name in ("prepare-commit-msg", "post-checkout"):
        hooks = write_hook(tmp_path, name)
    env = configure(
        tmp_path, section, setting.format(attributes=attributes, hooks=hooks)
    )
    before = (root / MODULE).read_bytes()

    result = run(PROGRAM, "update", BILLING, cwd=root, env=env, check=False)

    assert f"conflict in {BILLING}/{INSTANCE}" in result.stdout, result.stderr
    assert "<<<<<<< before updating" in (root / BILLING / INSTANCE).read_text()
    assert (root / MODULE).read_bytes() == before


@pytest.mark.parametrize(
    ("section", "setting", "reason"),
    [
        ("apply", "whitespace = error", "git has apply.whitespace=error"),
        ("apply", "whitespace = fix", "git has apply.whitespace=fix"),
        ("status", "showUntrackedFiles = no", "git has status.showUntrackedFiles=no"),
        ("core", "attributesFile = {attributes}", "git takes app/billing/workers/"),
        ("core", "excludesFile = {ignored}", f"git ignores {MODULE} in every new"),
    ],
)
def test_copier_alone_refuses_such_settings_before_anything_changes(
    section: str, setting: str, reason: str, root: Path, tmp_path: Path
) -> None:
    attributes = tmp_path / "attributes"
    attributes.write_text("*.py binary\n")
    ignored = tmp_path / "ignored"
    ignored.write_text(IGNORED)
    formatted = setting.format(attributes=attributes, ignored=ignored)
    env = configure(tmp_path, section, formatted)
    before = read_files(root)

    result = run(*UPDATES["copier"], BILLING, cwd=root, env=env, check=False)

    assert result.returncode == 1
    assert f"\nnothing is updated: {reason}" in result.stderr
    assert read_files(root) == before


def test_edited_modules_are_brought_back_even_if_a_hook_fails(
    next_release: Path, tmp_path: Path
) -> None:
    """An editor's variable for git does not prevent it, either."""
    root = make_root(tmp_path, next_release, FIRST)
    module = root / BILLING / "workers" / "chancy_sentry.py"
    module.write_text(f"{module.read_text()}# The team's.\n")
    commit_all(root)
    edited = module.read_bytes()
    hooks = write_hook(root / ".git", "post-checkout")
    run("git", "config", "core.hooksPath", hooks, cwd=root)

    env = environment(GIT_LITERAL_PATHSPECS="1")
    run(*UPDATES["copier"], BILLING, cwd=root, env=env)

    assert module.read_bytes() == edited


def not_utf_8(root: Path) -> None:
    path = root / MODULE
    path.write_bytes(
        b"# -*- coding: latin-1 -*-\n" + path.read_bytes() + b"# Gr\xfc\xdfe\n"
    )
    commit_all(root)


def with_nul(root: Path) -> None:
    (root / MODULE).write_bytes((root / MODULE).read_bytes() + b"# \0\n")
    commit_all(root)


def name_no_utf_8(root: Path) -> None:
    Path(os.fsdecode(bytes(root / BILLING) + b"/caf\xe9.txt")).touch()
    commit_all(root)


def tests_linked(root: Path) -> None:
    (root / BILLING / "workers" / "tests").rename(root / "tests")
    (root / BILLING / "workers" / "tests").symlink_to("../../../tests")
    commit_all(root)


def skipped(root: Path) -> None:
    run("git", "update-index", "--skip-worktree", f"{BILLING}/{INSTANCE}", cwd=root)
    (root / BILLING / INSTANCE).write_text("# Local.\n")


def unchanged(root: Path) -> None:
    run("git", "update-index", "--assume-unchanged", f"{BILLING}/{INSTANCE}", cwd=root)


def sparse(root: Path) -> None:
    run("git", "update-index", "-q", "--refresh", cwd=root)
    without = ("/*", f"!/{BILLING}/workers/")
    run("git", "sparse-checkout", "set", "--no-cone", *without, cwd=root)


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "not-utf-8": (not_utf_8, "__main__.py is not UTF-8 text"),
    "nul": (with_nul, "__main__.py is not UTF-8 text"),
    "name": (name_no_utf_8, r"caf\xe9.txt' is not UTF-8"),
    "linked-folder": (tests_linked, "workers/tests is a link to a folder"),
    "skip-worktree": (skipped, f"git update-index --no-skip-worktree {BILLING}/"),
    "assume-unchanged": (unchanged, "git update-index --no-assume-unchanged"),
    "sparse": (sparse, "git sparse-checkout disable"),
}


def contents(root: Path) -> dict[Path, bytes]:
    """Every file outside of .git, also files that git does not read or name."""
    files = (path for path in root.rglob("*") if ".git" not in path.parts)
    return {path: path.read_bytes() for path in files if path.is_file()}


@pytest.mark.parametrize("program", list(UPDATES))
@pytest.mark.parametrize("name", list(REFUSED))
def test_an_update_that_would_lose_an_edit_is_refused_with_the_file_s_name(
    name: str, program: str, root: Path
) -> None:
    hide, reason = REFUSED[name]
    hide(root)
    before = contents(root)

    result = run(*UPDATES[program], BILLING, cwd=root, check=False)

    printed = result.stdout if program == "chancy-workers" else result.stderr
    lines = [line for line in printed.splitlines() if reason in line]
    assert len(lines) == result.returncode == 1, result
    about = lines[0].rpartition("refused: ")[2].removeprefix("nothing is updated: ")
    assert ": " in about, "the reason has no way out"
    assert "Traceback" not in result.stderr
    assert contents(root) == before
    _, _, command = about.removesuffix(", then run this again").partition(": ")
    if command.startswith("git "):
        run("sh", "-c", command, cwd=root)
        marks = run("git", "ls-files", "-v", cwd=root).stdout.splitlines()
        assert {line[0] for line in marks} == {"H"}


def skip_pyproject(root: Path) -> None:
    run("git", "update-index", "--skip-worktree", "pyproject.toml", cwd=root)


def link_tests(root: Path) -> None:
    (root / "tests").rename(root / "checks")
    (root / "tests").symlink_to("checks")
    commit_all(root)


@pytest.fixture(scope="module")
def whole(next_release: Path, shared: Shared) -> Path:
    def make(root: Path) -> None:
        options = ("--data=scope=backend", f"--vcs-ref={WORKING_TREE}")
        copy(root, *options, cwd=root.parent, template=next_release)
        commit(root)

    return shared.folder("whole/backend", make)


@pytest.mark.parametrize(
    ("hide", "reason"),
    [
        (skip_pyproject, "git does not check pyproject.toml for changes"),
        (link_tests, "tests is a link to a folder"),
    ],
)
def test_in_a_backend_files_beside_the_service_are_also_checked(
    hide: Callable[[Path], None], reason: str, whole: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(whole, tmp_path / "backend"))
    hide(root)
    before = contents(root)

    result = run(*UPDATES["copier"], ".", cwd=root, check=False)

    assert result.returncode == 1
    assert f"\nnothing is updated: {reason}" in result.stderr
    assert contents(root) == before


def test_a_hidden_file_that_the_update_does_not_change_does_not_stop_it(
    root: Path,
) -> None:
    run("git", "update-index", "--skip-worktree", MODULE, cwd=root)
    (root / MODULE).write_text("# Local.\n")

    result = run(PROGRAM, "update", BILLING, cwd=root, check=False)

    assert f"conflict in {BILLING}/{INSTANCE}" in result.stdout, result.stdout
    assert (root / MODULE).read_text() == "# Local.\n"


def test_an_update_succeeds_if_all_workers_were_deleted(root: Path) -> None:
    shutil.rmtree(root / BILLING / "workers")
    commit_all(root)

    run(*UPDATES["copier"], BILLING, cwd=root)

    assert not (root / BILLING / INSTANCE).exists()


def test_copier_alone_also_reports_an_answer_that_cannot_be_rendered(
    root: Path,
) -> None:
    edits.change_answers(root / BILLING, jobs=[{"name": "late", "queue": "nowhere"}])
    commit_all(root)
    before = read_files(root)

    result = run(*UPDATES["copier"], BILLING, cwd=root, check=False)

    assert 'names the queue "nowhere", which is not declared' in result.stderr
    assert read_files(root) == before


def test_without_git_the_error_says_to_install_it(root: Path, tmp_path: Path) -> None:
    env = environment(PATH=str(tmp_path))

    result = run(PROGRAM, "check", cwd=root, env=env, check=False)

    assert result.returncode == 1
    assert "git is not installed: install it" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_repository_of_a_calling_hook_or_alias_is_not_used(
    root: Path, tmp_path: Path
) -> None:
    """In a linked worktree git sets GIT_DIR for them, and a commit also its index."""
    tree = tmp_path / "tree"
    run("git", "worktree", "add", "--quiet", tree, cwd=root)
    alias = f"alias.renew=!{PROGRAM} update {BILLING}"
    result = run("git", "-c", alias, "renew", cwd=tree, check=False)
    assert f"conflict in {BILLING}/{INSTANCE}" in result.stdout, result.stderr
    assert run("git", "status", "--porcelain", cwd=root).stdout == ""

    hook = root / ".git" / "hooks" / "pre-commit"
    hook.write_text(f"#!/bin/sh\n{PROGRAM} check > {tmp_path}/found || true\n")
    hook.chmod(0o755)
    (root / BILLING / "NOTES.md").write_text("more\n")
    run(*GIT, "commit", "--quiet", "--all", "--message=more", cwd=root)
    assert "is behind" in (tmp_path / "found").read_text()
    assert run("git", "show", "--format=", "--name-only", cwd=root).stdout == (
        f"{BILLING}/NOTES.md\n"
    )


def move_service(root: Path) -> None:
    """Renames a backend's first service everywhere except in the answers."""
    (root / BILLING).rename(root / "app" / "invoices")
    for name, content in read_files(root).items():
        if name != ANSWERS:
            content = re.sub(rb"app([./])billing", rb"app\1invoices", content)
            (root / name).write_bytes(content)
    commit_all(root)


def test_a_renamed_service_of_a_backend_is_reported_and_then_updated(
    whole: Path, tmp_path: Path
) -> None:
    root = Path(shutil.copytree(whole, tmp_path / "backend"))
    move_service(root)
    before = read_files(root)

    for command in ([*COPIER, "update", "--trust", "--defaults"], [PROGRAM, "update"]):
        result = run(*command, cwd=root, check=False)
        assert result.returncode == 1
        assert "app/billing does not exist" in result.stdout + result.stderr
        assert read_files(root) == before
    found = run(PROGRAM, "check", cwd=root, check=False).stdout
    assert found.count("\n") == 1 and "app/billing does not exist: write" in found

    edits.change_answers(root, service="invoices")
    commit_all(root)
    run(PROGRAM, "update", cwd=root)

    assert "as the next release" in (root / "app" / "invoices" / INSTANCE).read_text()
    assert not (root / BILLING).exists()
    assert f"_commit: {NEXT}" in (root / ANSWERS).read_text()


def test_the_printed_undo_command_includes_an_app_outside_of_the_folder(
    next_release: Path, tmp_path: Path
) -> None:
    root = tmp_path / "backend"
    (root / "app").mkdir(parents=True)
    (root / "pyproject.toml").touch()
    app = root / "app" / "api.py"
    app.write_text("from fastapi import FastAPI\n\napp = FastAPI()\n")
    options = ("--data=main=../api.py", f"--vcs-ref={WORKING_TREE}", "--skip-tasks")
    copy(BILLING, *options, cwd=root, template=next_release)
    commit(root)

    result = run(*UPDATES["copier"], BILLING, cwd=root)
    assert "workers_router" in app.read_text() or "initialize" in app.read_text()
    (undo,) = re.findall(r"^ +(git checkout .*)$", result.stderr, re.M)
    run("sh", "-c", undo, cwd=root)

    assert run("git", "status", "--porcelain", cwd=root).stdout == ""
