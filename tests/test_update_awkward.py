"""Unusual checkouts and templates are updated, or refused in one line."""

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import yaml

from . import edits
from .checkouts import ANSWERS, BILLING, FIRST, UPDATES, make_root
from .releases import (
    INSTANCE,
    WORKING_TREE,
    commit_all,
    read_files,
)
from .shared import Shared
from .support import COPIER, GIT, PROGRAM, copy, run
from .updates import KEPT


@pytest.fixture(scope="session")
def one_service(next_release: Path, shared: Shared) -> Path:
    return (
        shared.folder(
            "one service", lambda folder: make_root(folder, next_release, WORKING_TREE)
        )
        / "backend"
    )


@pytest.fixture
def root(one_service: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(one_service, tmp_path / "backend"))


JOBS = ("send_digest", "archive", "report")


def status(root: Path) -> str:
    return run(
        *("git", "-c", "core.quotePath=false", "status", "--porcelain"), cwd=root
    ).stdout


# Functions that make a checkout unusual: each takes the backend's root and returns the new one.


def detached(root: Path) -> Path:
    run("git", "checkout", "--quiet", "--detach", cwd=root)
    return root


def shallow(root: Path) -> Path:
    commit_all(root)
    run("git", "clone", "-q", "--depth=1", root.as_uri(), "../shallow", cwd=root)
    return root.with_name("shallow")


def worktree(root: Path) -> Path:
    run("git", "worktree", "add", "--quiet", "../tree", cwd=root)
    return root.with_name("tree")


def submodule(root: Path) -> Path:
    outer = root.with_name("outer")
    outer.mkdir()
    run("git", "init", "-q", cwd=outer)
    allow = ("-c", "protocol.file.allow=always")
    run("git", *allow, "submodule", "--quiet", "add", root, "inner", cwd=outer)
    return outer / "inner"


def moved(root: Path) -> Path:
    (root / "services").mkdir()
    (root / BILLING).rename(root / "services" / "billing")
    commit_all(root)
    return root


def below_umlauts(root: Path) -> Path:
    (root / "Gehälter und Löhne").mkdir()
    (root / "app").rename(root / "Gehälter und Löhne" / "app")
    commit_all(root)
    return Path(root.rename(root.with_name("für alle")))


def in_an_ignored_folder(root: Path) -> Path:
    outer = root.with_name("outer")
    outer.mkdir()
    run("git", "init", "-q", cwd=outer)
    (outer / ".gitignore").write_text("backend/\n")
    return Path(root.rename(outer / "backend"))


def dirty_elsewhere(root: Path) -> Path:
    (root / "notes.txt").touch()
    return root


def read_only(root: Path) -> Path:
    next(root.rglob(INSTANCE)).chmod(0o444)
    return root


def _check_out_again(root: Path) -> Path:
    run("git", "rm", "-r", "-q", "--cached", ".", cwd=root)
    run("git", "reset", "--hard", "-q", cwd=root)
    assert b"\r\n" in next(root.rglob(INSTANCE)).read_bytes()
    return root


def crlf_by_attributes(root: Path) -> Path:
    (root / BILLING / ".gitattributes").write_text("*.py text eol=crlf\n")
    commit_all(root)
    return _check_out_again(root)


def crlf_by_configuration(root: Path) -> Path:
    run("git", "config", "core.autocrlf", "true", cwd=root)
    return _check_out_again(root)


def linked(root: Path) -> Path:
    (root / "link").symlink_to(BILLING)
    commit_all(root)
    return root


# Several at once to save time; each was also tested alone.
CHECKOUTS: dict[str, Sequence[Callable[[Path], Path]]] = {
    "clone": (moved, shallow, detached, in_an_ignored_folder, read_only),
    "worktree-of-submodule": (below_umlauts, submodule, worktree, dirty_elsewhere),
    "crlf-by-attributes": (crlf_by_attributes,),
    "crlf-by-configuration-and-link": (linked, crlf_by_configuration),
}


@pytest.mark.parametrize("program", list(UPDATES))
@pytest.mark.parametrize("name", list(CHECKOUTS))
def test_an_unusual_checkout_is_updated(name: str, program: str, root: Path) -> None:
    for make in CHECKOUTS[name]:
        root = make(root)
    instance = next(root.rglob(INSTANCE))
    before = instance.read_bytes()
    mode = instance.stat().st_mode
    service = instance.parents[1]

    link = root / "link"
    named = link if link.is_symlink() else service
    run(*UPDATES[program], named.relative_to(root), cwd=root)

    run("git", "add", "--update", cwd=root)
    changed = run("git", "diff", "--cached", "--numstat", "-z", cwd=root).stdout
    below = service.relative_to(root)
    assert changed == f"1\t1\t{below / ANSWERS}\0" + f"1\t1\t{below / INSTANCE}\0"
    assert (root / "notes.txt").exists() == (dirty_elsewhere in CHECKOUTS[name])
    if program == "chancy-workers":
        after = instance.read_bytes()
        _, rest = before.split(b"\n", 1)
        assert after.endswith(rest)
        assert after.count(b"\r\n") == before.count(b"\r\n")
        assert instance.stat().st_mode == mode


@pytest.mark.parametrize("program", list(UPDATES))
def test_a_file_that_the_team_replaced_with_a_link_stays_and_is_reported(
    program: str, root: Path
) -> None:
    instance = root / BILLING / INSTANCE
    (root / "instance.py").write_bytes(instance.read_bytes())
    instance.unlink()
    instance.symlink_to("../../../instance.py")
    (root / BILLING / "workers" / "gone.txt").symlink_to("nowhere")
    commit_all(root)
    before = read_files(root)

    printed = run(*UPDATES[program], BILLING, cwd=root).stdout

    assert f"{INSTANCE} is a link and stays one" in printed
    assert printed.count(" is a link") == 1
    assert instance.is_symlink()
    after = read_files(root)
    assert {name for name in before if before[name] != after[name]} == {
        f"{BILLING}/{ANSWERS}"
    }


@pytest.mark.parametrize("by", ["attributes", "configuration"])
def test_a_conflict_in_a_checkout_with_crlf_covers_only_the_changed_lines(
    by: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = root / BILLING / INSTANCE
    edits.edit_what_the_next_release_changes(root / BILLING)
    commit_all(root)
    if by == "attributes":
        crlf_by_attributes(root)
    else:
        (tmp_path / "gitconfig").write_text("[core]\nautocrlf = true\n")
        monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
        _check_out_again(root)
    _, rest = instance.read_bytes().split(b"\n", 1)

    run(PROGRAM, "update", BILLING, cwd=root, check=False)

    after = instance.read_bytes()
    assert b"<<<<<<< before updating" in after
    assert after.endswith(rest)


def test_both_programs_refuse_a_service_with_uncommitted_changes(root: Path) -> None:
    (root / BILLING / "notes.txt").touch()
    before = status(root)

    for command in UPDATES.values():
        result = run(*command, BILLING, cwd=root, check=False)

        assert result.returncode == 1
        assert "commit or stash" in result.stdout + result.stderr
        assert status(root) == before


def rename(root: Path) -> Path:
    service = root / "app" / "invoices"
    (root / BILLING).rename(service)
    commit_all(root)
    return service


def assert_is_updated_to_its_folder(service: Path) -> None:
    assert "as the next release" in (service / INSTANCE).read_text()
    answers = yaml.safe_load((service / ANSWERS).read_text())
    assert (answers["package"], answers["prefix"]) == ("app.invoices", "billing_")


@pytest.mark.parametrize("program", list(UPDATES))
def test_updating_a_service_whose_folder_was_renamed_changes_its_package(
    program: str, root: Path
) -> None:
    service = rename(root)

    run(*UPDATES[program], "app/invoices", cwd=root)

    assert_is_updated_to_its_folder(service)


def test_a_renamed_service_of_the_first_release_is_also_updated(
    next_release: Path, tmp_path: Path
) -> None:
    root = make_root(tmp_path, next_release, FIRST)
    service = rename(root)

    run(PROGRAM, "update", "app/invoices", cwd=root)

    assert_is_updated_to_its_folder(service)


def point_to(root: Path, source: str) -> None:
    """Writes another template into the answers."""
    path = root / BILLING / ANSWERS
    lines = path.read_text().splitlines()
    path.write_text(
        "".join(
            f"_src_path: {source}\n" if line.startswith("_src_path: ") else f"{line}\n"
            for line in lines
        )
    )
    commit_all(root)


@pytest.mark.parametrize("source", ["../template", "git+file://{folder}/template"])
def test_a_template_given_as_a_relative_path_or_a_url_is_found_from_any_folder(
    source: str, next_release: Path, root: Path
) -> None:
    root.with_name("template").symlink_to(next_release)
    source = source.format(folder=root.parent)
    point_to(root, source)

    printed = run(PROGRAM, "check", "billing", cwd=root / "app").stdout
    assert "notice: v" in printed and "is behind" in printed
    run(PROGRAM, "update", "billing", cwd=root / "app")

    assert "as the next release" in (root / BILLING / INSTANCE).read_text()
    answers = yaml.safe_load((root / BILLING / ANSWERS).read_text())
    assert answers["_src_path"] == source


@pytest.fixture(params=["archive", "gone", "gone-url", "without-tags"])
def lost(
    request: pytest.FixtureRequest, next_release: Path, root: Path, tmp_path: Path
) -> tuple[Path, str]:
    """A service with an unusable template, and the way out."""
    elsewhere = tmp_path / "elsewhere"
    mend = "as _src_path"
    if request.param == "archive":
        mend = "as _commit"
        elsewhere.mkdir()
        archive = tmp_path / "template.tar"
        run("git", "archive", f"--output={archive}", WORKING_TREE, cwd=next_release)
        shutil.unpack_archive(archive, elsewhere, filter="data")
        shutil.rmtree(root / BILLING)
        copy(BILLING, cwd=root, template=elsewhere)
        commit_all(root)
    elif request.param == "without-tags":
        run("git", "clone", "--quiet", "--no-tags", next_release, elsewhere, cwd=root)
        mend = "git fetch --tags"
    if request.param == "gone-url":
        point_to(root, f"git+{elsewhere.as_uri()}")
        mend = "_src_path in the answers file"
    elif request.param != "archive":
        point_to(root, str(elsewhere))
    return root, mend


def test_an_unusable_template_is_reported_with_the_way_out(
    lost: tuple[Path, str],
) -> None:
    root, mend = lost
    before = read_files(root)

    for command in (
        ["update", BILLING],
        ["add-job", BILLING, "archive"],
        ["check", BILLING],
    ):
        result = run(PROGRAM, *command, cwd=root, check=False)

        assert result.returncode == 1
        printed = result.stdout + result.stderr
        (line,) = [line for line in printed.splitlines() if mend in line]
        assert str(root.with_name("elsewhere")) in line or "Unknown revision" in line
        assert read_files(root) == before


def test_a_service_that_was_reformatted_has_no_conflicts(
    template: Path, tmp_path: Path
) -> None:
    option = "--data=only_registered=false"
    current = make_root(tmp_path / "new", template, WORKING_TREE, 100, option)
    root = make_root(tmp_path / "old", template, FIRST, 100)

    printed = run(PROGRAM, "update", cwd=root).stdout

    assert printed.count("the layout of your formatter") == 1
    edits.reformat(root / BILLING, 100)
    fresh, updated = map(read_files, (current, root))
    for name in fresh.keys() | updated.keys():
        assert KEPT.fullmatch(name) or updated.get(name) == fresh.get(name), name


def test_edits_in_a_reformatted_file_are_merged_as_usual(
    template: Path, tmp_path: Path
) -> None:
    root = make_root(tmp_path, template, FIRST, 100)
    instance = f"{BILLING}/{INSTANCE}"
    text = (root / instance).read_text()
    (root / instance).write_text(
        text.replace("= chancy\n", "= chancy  # The team's.\n")
    )
    commit_all(root)

    printed = run(PROGRAM, "update", cwd=root, check=False).stdout

    assert f"conflict in {instance}" in printed
    assert "# The team's." in (root / instance).read_text()


@pytest.mark.parametrize(
    ("ignored", "command"),
    [
        ("workers/tests/conftest.py", ["update"]),
        ("workers/send_digest/worker.py", ["add-job", BILLING, "report"]),
        (ANSWERS, ["update", BILLING]),
        ("workers/report/__init__.py", ["add-job", BILLING, "report"]),
    ],
    ids=["module", "job", "answers", "new-job"],
)
def test_an_update_refuses_a_file_that_git_ignores_before_anything_changes(
    ignored: str, command: list[str], root: Path
) -> None:
    path = root / BILLING / ignored
    (root / ".gitignore").write_text(f"**/{path.parent.name}/{path.name}\n")
    run("git", "rm", "-q", "--cached", "--ignore-unmatch", path, cwd=root)
    commit_all(root)
    before = {each: each.read_bytes() for each in root.rglob("*.*") if each.is_file()}

    result = run(PROGRAM, *command, cwd=root, check=False)

    assert result.returncode == 1
    assert f"git ignores {BILLING}/{ignored}, which" in result.stdout + result.stderr
    after = {each: each.read_bytes() for each in root.rglob("*.*") if each.is_file()}
    assert after == before
    if path.exists():
        run("git", "add", "--force", path, cwd=root)
        commit_all(root)
        run(PROGRAM, *command, cwd=root)
        assert path.exists()


def test_copier_update_does_not_delete_ignored_files_and_reports_new_ones(
    root: Path,
) -> None:
    (root / ".gitignore").write_text("*instance*\n*_results*\n")
    instance = f"{BILLING}/workers/chancy_instance.py"
    run("git", "rm", "-q", "--cached", instance, cwd=root)
    commit_all(root)
    update = [*COPIER, "update", "--trust", "--defaults", "--vcs-ref=:current:"]

    refused = run(*update, BILLING, cwd=root, check=False)

    assert refused.returncode == 1
    assert (
        f"git ignores {instance}, so it would be deleted: git add -f" in refused.stderr
    )
    assert (root / instance).is_file()

    run("git", "add", "-f", instance, cwd=root)
    commit_all(root)
    updated = run(*update, "-d", "jobs=[send_digest, pull_results]", BILLING, cwd=root)

    job = f"{BILLING}/workers/pull_results"
    assert f"Git ignores {job}/__init__.py {job}/worker.py" in updated.stdout
    assert (root / instance).is_file()


def test_in_a_repository_with_crlf_only_edited_lines_conflict(root: Path) -> None:
    files = [path for path in (root / BILLING).rglob("*.*") if path.is_file()]
    for path in files:
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    commit_all(root)

    run(PROGRAM, "update", cwd=root)

    changed = run("git", "diff", "HEAD", "--numstat", cwd=root).stdout.splitlines()
    assert changed == [f"1\t1\t{BILLING}/{name}" for name in (ANSWERS, INSTANCE)]
    assert all(not has_lf(path) for path in files)

    run("git", "reset", "-q", "--hard", cwd=root)
    instance = root / BILLING / INSTANCE
    instance.write_bytes(instance.read_bytes().replace(b'"""Holds', b'"""It holds', 1))
    commit_all(root)
    ours = instance.read_bytes()

    printed = run(PROGRAM, "update", cwd=root, check=False).stdout

    assert f"conflict in {BILLING}/{INSTANCE}\n" in printed
    assert b"<<<<<<< before updating\r\n" in instance.read_bytes()
    run("git", "checkout", "--ours", "--", instance, cwd=root)
    assert instance.read_bytes() == ours
    run("git", "checkout", "--theirs", "--", instance, cwd=root)
    assert b"as the next release" in instance.read_bytes() and not has_lf(instance)


def has_lf(path: Path) -> bool:
    """Whether a line ends with LF alone."""
    return b"\n" in path.read_bytes().replace(b"\r\n", b"")


@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_jobs_of_two_branches_exist_after_a_merge_and_an_update(
    side: str, root: Path
) -> None:
    branch = run("git", "branch", "--show-current", cwd=root).stdout.strip()
    run("git", "checkout", "-q", "-b", "other", cwd=root)
    for name in ("archive", "report"):
        run(PROGRAM, "add-job", BILLING, name, "--schedule=@daily", cwd=root)
        commit_all(root)
        run("git", "checkout", "-q", branch, cwd=root)
    run(*GIT, "merge", "other", cwd=root, check=False)
    unmerged = run("git", "diff", "--name-only", "--diff-filter=U", cwd=root).stdout
    assert f"{BILLING}/{ANSWERS}" in unmerged
    run("git", "checkout", f"--{side}", "--", *unmerged.split(), cwd=root)
    jobs = [{"name": name, "schedule": "@daily"} for name in JOBS]
    edits.change_answers(root / BILLING, jobs=jobs)
    commit_all(root)

    printed = run(PROGRAM, "update", cwd=root).stdout

    initialization = root / BILLING / "workers" / "chancy_initialization.py"
    for name in JOBS:
        imported = f"from .{name}.worker import {name}\n"
        assert initialization.read_text().count(imported) == 1
        assert (root / BILLING / "workers" / name / "worker.py").is_file()
    assert "updated" in printed
    commit_all(root)
    assert run(PROGRAM, "check", cwd=root).returncode == 0


@pytest.mark.parametrize(
    ("name", "line"), [("_commit", "_commit: 5"), ("_src_path", "_src_path: []")]
)
def test_copier_s_own_answers_that_are_not_texts_are_reported_in_one_line(
    name: str, line: str, root: Path
) -> None:
    path = root / BILLING / ANSWERS
    path.write_text(re.sub(f"(?m)^{name}: .*$", line, path.read_text()))
    commit_all(root)

    for command in (["update"], ["check"]):
        printed = run(PROGRAM, *command, cwd=root, check=False).stdout

        assert f"as {name}, which is not a text: restore the line" in printed
    assert status(root) == ""


@pytest.fixture
def newest_release(next_release: Path, tmp_path: Path) -> Path:
    """The template with a pre-release after its newest release."""
    folder = tmp_path / "template"
    run("git", "clone", "--quiet", next_release, folder, cwd=tmp_path)
    commit_all(folder)
    run("git", "tag", "v100.0.0rc1", cwd=folder)
    return folder


def test_a_pre_release_after_the_newest_release_is_current_and_applies_answers(
    newest_release: Path, tmp_path: Path
) -> None:
    root = make_root(tmp_path, newest_release, "v100.0.0rc1")

    assert run(PROGRAM, "update", cwd=root).stdout.endswith(
        "app/billing  v100.0.0rc1  v100.0.0rc1  current\n"
    )
    edits.change_answers(root / BILLING, sentry=False)
    commit_all(root)
    run(PROGRAM, "update", cwd=root)

    initialization = root / BILLING / "workers" / "chancy_initialization.py"
    assert "SentryPlugin" not in initialization.read_text()
    answers = yaml.safe_load((root / BILLING / ANSWERS).read_text())
    assert answers["_commit"] == "v100.0.0rc1"


def test_check_names_the_folder_from_which_its_commands_run(root: Path) -> None:
    result = run(PROGRAM, "check", "billing", cwd=root / "app", check=False)
    assert "are from ..: cd there first" in result.stderr

    assert "are from" not in run(PROGRAM, "check", cwd=root, check=False).stderr
