"""Refuses an update that would lose edits; Copier runs it before it changes any file.

    python refuse_update.py ANSWERS_FILE TEMPLATE

Copier applies a team's edits as a git patch. In the situations that this program finds, git
or Copier leaves some of the edits out without a message.
"""

import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import yaml

# Files in a service's folder that Copier merges, or removes if a release before v0.5.0
# rendered them. All other files are written once.
OF_WORKERS = re.compile(
    r"workers/(chancy_\w+|__init__|__main__"
    r"|tests/(__init__|conftest|test_(chancy_\w+|main|workers)))\.py"
)
# These files, and the files that are written once.
RENDERED = re.compile(
    rf"{OF_WORKERS.pattern}|workers/(\w+/(__init__|worker)|tests/test_job_\w+)\.py"
)
OF_BACKEND = re.compile(
    r"README\.md|pyproject\.toml|\.gitignore"
    r"|app/(__init__|observability|secret_values)\.py"
    r"|tests/test_(observability|secret_values)\.py"
)
# Files of a deployment; those outside of deploy/ are at the root of a backend.
OF_DEPLOYMENT = re.compile(
    r"deploy/(Dockerfile(\.dockerignore)?|compose\.yaml|deploy\.sh|\w+\.bicep)"
    r"|Dockerfile|\.dockerignore|compose\.yaml"
)
# Settings of git, each with the values with which no edit is lost.
SETTINGS = {
    "apply.whitespace": ("", "nowarn", "warn"),
    "status.showUntrackedFiles": ("", "normal", "all", "true", "yes", "on", "1"),
}
# A user's git configuration may apply only to folders with this name.
LIKE_COPIER_S = "copier._main.old_copy."
INSTEAD = "run chancy-workers update, which ignores it"


def main(answers_file: str, template: str) -> int:
    """Prints the first reason against the update; returns the exit status.

    Args:
        template: A clone of the template's repository.
    """
    from keep_files import ignore_pathspec_settings

    ignore_pathspec_settings()
    answers = yaml.safe_load(Path(answers_file).read_text(encoding="utf-8"))
    backend = answers["scope"] == "backend"
    service = f"app/{answers['service']}" if backend else "."
    prefix = git("rev-parse", "--show-prefix").rstrip("\n")
    files = [*merged_files(service, backend)]
    names = {name for _, name in files} | rendered(template, service, backend)
    if answers.get("deploy", "none") == "none":
        files = [(mark, name) for mark, name in files if not is_deployment(name)]
        names = {name for name in names if not is_deployment(name)}
    for reason in chain(
        of_folders(answers_file, answers, service),
        of_settings(),
        of_new_repositories([f"{prefix}{name}" for name in sorted(names)]),
        of_names(),
        of_files(prefix, files),
        of_ignored(prefix, service),
    ):
        print(f"nothing is updated: {reason}", file=sys.stderr)
        return 1
    return 0


def of_folders(
    answers_file: str, answers: Mapping[str, Any], service: str
) -> Iterator[str]:
    """Folders that the template renders into and that are links or missing."""
    folders = [f"{service}/workers", f"{service}/workers/tests"]
    if answers["scope"] == "backend":
        folders += ["app", "tests", service]
    if answers.get("deploy", "none") != "none":
        folders.append("deploy")
    for folder in folders:
        if Path(folder).is_symlink():
            yield (
                f"{os.path.normpath(folder)} is a link to a folder, and git writes nothing "
                "through it: move that folder here, commit, then run this again"
            )
    if not Path(service).is_dir():
        yield (
            f"{service} does not exist: write the service's new name as service in "
            f"{answers_file}, commit, then run chancy-workers update"
        )


def of_settings() -> Iterator[str]:
    """Settings with which git leaves edits out, or Copier misses files."""
    for name, harmless in SETTINGS.items():
        value = git("config", "--get", name, check=False).strip()
        if value not in harmless:
            yield (
                f"git has {name}={value}, with which edits are lost: remove it (git config "
                f"--show-origin {name} shows where it is), or {INSTEAD}"
            )


def of_names() -> Iterator[str]:
    """Names of files, anywhere in the repository, that are not UTF-8."""
    for name in git("ls-files", "-z", "--full-name", ":/").split("\0"):
        try:
            name.encode()
        except UnicodeEncodeError:
            yield (
                f"the name of {os.fsencode(name)!r} is not UTF-8, and Copier fails on it: "
                "rename the file, commit, then run this again"
            )


def of_new_repositories(files: Sequence[str]) -> Iterator[str]:
    """Files that a user's git configuration hides in the repositories that Copier makes.

    Copier compares two such repositories, without files that git does not add or takes for
    binary there. So this makes a repository in the same way and asks git about each file.
    """
    if not files:
        return
    with tempfile.TemporaryDirectory(prefix=LIKE_COPIER_S) as folder:
        for name in files:
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("text\n", encoding="utf-8")
        where = ("-C", folder)
        git(*where, "init")
        added = run(*where, "add", ".")
        if added.returncode != 0:
            reason = "".join(added.stderr.splitlines()[-1:])
            yield (
                f"git add fails in a new repository such as Copier makes ({reason}): remove "
                f"the git setting that causes it, or {INSTEAD}"
            )
            return
        empty = git(*where, "hash-object", "-t", "tree", "-w", os.devnull).strip()
        tree = git(*where, "write-tree").strip()
        listed = git(*where, "diff-tree", "-r", "-z", "--numstat", empty, tree)
        entries = (entry.rpartition("\t") for entry in listed.split("\0"))
        lines = {name: numbers for numbers, _, name in entries}
        for name in files:
            if name not in lines and (by := ignored_by(name, where)):
                yield (
                    f"git ignores {name} in every new repository ({by}), and edits of it "
                    f"would be lost: remove that pattern, or {INSTEAD}"
                )
            elif lines.get(name, "").startswith("-"):
                yield (
                    f"git takes {name} for binary in every new repository, because of your "
                    "git settings, and edits of it would be lost: remove the cause "
                    "(core.bigFileThreshold, or a line in the file that git config "
                    "core.attributesFile names, in ~/.config/git/attributes or in "
                    f"info/attributes below init.templateDir), or {INSTEAD}"
                )


def ignored_by(name: str, where: Sequence[str]) -> str:
    """The file, line and pattern that make git ignore a file, "" if it does not."""
    output = git(*where, "check-ignore", "-v", "--no-index", name, check=False)
    found = output.partition("\t")[0]
    template = ".git/info/exclude"
    if found.startswith(template):
        return f"info/exclude below init.templateDir{found.removeprefix(template)}"
    return found


def of_files(prefix: str, files: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Files whose edits git does not see, or that Copier cannot read.

    Args:
        prefix: The path from the repository's top folder to this one.
    """
    for mark, name in files:
        if command := shown_again(mark, f"{prefix}{name}"):
            yield (
                f"git does not check {prefix}{name} for changes, and edits of it would be "
                f"lost: {command}, then run this again"
            )
        elif Path(name).is_file() and not is_text(Path(name).read_bytes()):
            yield (
                f"{prefix}{name} is not UTF-8 text, and edits of it would be lost: save it "
                "as UTF-8 and without NUL, commit, then run this again"
            )


def of_ignored(prefix: str, service: str) -> Iterator[str]:
    """Untracked files of the workers that git ignores, which Copier would delete.

    Args:
        prefix: The path from the repository's top folder to this one.
    """
    listed = git(
        *("ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--"),
        f":(glob){service}/workers/**/*.py",
    )
    for name in filter(None, listed.split("\0")):
        if RENDERED.fullmatch(os.path.relpath(name, service)):
            shown = shlex.quote(f"{prefix}{name}")
            yield (
                f"git ignores {prefix}{name}, so it would be deleted: git add -f {shown} "
                f"(git check-ignore -v {shown} shows the line), commit, then run this again"
            )


def shown_again(mark: str, name: str, *where: str) -> str:
    """The commands after which git checks a file for changes again; "" if it does already.

    Args:
        mark: The file's mark in `git ls-files -v`.
        where: Options for git that select the repository.
    """
    commands = []
    if mark in "Ss":
        sparse = git(
            *where, "config", "--default=false", "--get", "core.sparseCheckout"
        ).strip()
        commands.append(
            "git sparse-checkout disable"
            if sparse == "true"
            else f"git update-index --no-skip-worktree {shlex.quote(name)}"
        )
    if mark.islower():
        commands.append(f"git update-index --no-assume-unchanged {shlex.quote(name)}")
    return " && ".join(commands)


def merged_files(service: str, backend: bool) -> Iterator[tuple[str, str]]:
    """The marks of `git ls-files -v` and the names of the files that Copier merges."""
    for entry in filter(None, git("ls-files", "-v", "-z").split("\0")):
        mark, name = entry.split(" ", 1)
        if is_merged(name, service, backend):
            yield mark, name


def rendered(template: str, service: str, backend: bool) -> set[str]:
    """The names of such files in the template; the team may have deleted some."""
    from keep_files import JINJA, rendered_files, tree_of

    workers = os.path.normpath(f"{service}/workers")
    tree = tree_of("HEAD", "template", "-C", template)
    names = {name.removesuffix(JINJA) for name in rendered_files(tree, workers)}
    return {name for name in names if is_merged(name, service, backend)}


def is_merged(name: str, service: str, backend: bool) -> bool:
    if OF_WORKERS.fullmatch(os.path.relpath(name, service)):
        return True
    if is_deployment(name):
        return backend or name.startswith("deploy/")
    return backend and (
        bool(OF_BACKEND.fullmatch(name)) or name == f"{service}/__init__.py"
    )


def is_deployment(name: str) -> bool:
    return bool(OF_DEPLOYMENT.fullmatch(name))


def is_text(content: bytes) -> bool:
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


def git(*arguments: str, check: bool = True) -> str:
    result = run(*arguments)
    if check:
        result.check_returncode()
    return result.stdout


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", *arguments],
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
    )


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
