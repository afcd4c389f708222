"""Refuses an update that would lose something; Copier runs it before it changes a file.

    python refuse_update.py ANSWERS_FILE TEMPLATE

Copier carries a team's edits over as a patch of git's. Under what this looks for, git or
Copier leaves a part of them out, and neither says so.
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

# What Copier merges or, of releases before v0.5.0, takes away: in a service's folder and in
# a backend. The rest is written once.
OF_WORKERS = re.compile(
    r"workers/(chancy_\w+|__init__|__main__"
    r"|tests/(__init__|conftest|test_(chancy_\w+|main|workers)))\.py"
)
# The same, and what is written once.
RENDERED = re.compile(
    rf"{OF_WORKERS.pattern}|workers/(\w+/(__init__|worker)|tests/test_job_\w+)\.py"
)
OF_BACKEND = re.compile(
    r"README\.md|pyproject\.toml|\.gitignore"
    r"|app/(__init__|observability|secret_values)\.py"
    r"|tests/test_(observability|secret_values)\.py"
)
# The files of a deployment; those outside of deploy/ are at the root of a backend.
OF_DEPLOYMENT = re.compile(
    r"deploy/(Dockerfile(\.dockerignore)?|compose\.yaml|deploy\.sh|\w+\.bicep)"
    r"|Dockerfile|\.dockerignore|compose\.yaml"
)
# Settings of git, with the values under which nothing is lost.
SETTINGS = {
    "apply.whitespace": ("", "nowarn", "warn"),
    "status.showUntrackedFiles": ("", "normal", "all", "true", "yes", "on", "1"),
}
# A person's settings may be for folders of this name only.
LIKE_COPIER_S = "copier._main.old_copy."
INSTEAD = "run chancy-workers update, which goes without it"


def main(answers_file: str, template: str) -> int:
    """Returns the exit status, 1 with one line when there is a reason.

    Args:
        template: A clone of its repository.
    """
    from keep_files import read_paths_as_usual

    read_paths_as_usual()
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
    """Folders that the template renders into and that are links, or not there."""
    folders = [f"{service}/workers", f"{service}/workers/tests"]
    if answers["scope"] == "backend":
        folders += ["app", "tests", service]
    if answers.get("deploy", "none") != "none":
        folders.append("deploy")
    for folder in folders:
        if Path(folder).is_symlink():
            yield (
                f"{os.path.normpath(folder)} is a link to a folder, into which git writes "
                "nothing: move that folder here, commit, then run this again"
            )
    if not Path(service).is_dir():
        yield (
            f"{service} is not there: write the service's new name as service in "
            f"{answers_file}, commit, then run chancy-workers update"
        )


def of_settings() -> Iterator[str]:
    """Settings under which git leaves edits out, or Copier what it has to look at."""
    for name, harmless in SETTINGS.items():
        value = git("config", "--get", name, check=False).strip()
        if value not in harmless:
            yield (
                f"git has {name}={value}, with which edits are lost: take it out (git "
                f"config --show-origin {name} tells where it is), or {INSTEAD}"
            )


def of_names() -> Iterator[str]:
    """Names that are no text, anywhere in the repository."""
    for name in git("ls-files", "-z", "--full-name", ":/").split("\0"):
        try:
            name.encode()
        except UnicodeEncodeError:
            yield (
                f"the name of {os.fsencode(name)!r} is no UTF-8, and Copier stops there: "
                "rename the file, commit, then run this again"
            )


def of_new_repositories(files: Sequence[str]) -> Iterator[str]:
    """Files that a person's set-up of git hides in the repositories that Copier makes.

    Copier compares two of them: a file that git does not add there, or takes for binary,
    is left out. So a repository is made in the same way, and git asked about each file.
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
                f"git add fails in a new repository, as Copier makes one ({reason}): take "
                f"out the setting of yours that it is by, or {INSTEAD}"
            )
            return
        empty = git(*where, "hash-object", "-t", "tree", "-w", os.devnull).strip()
        tree = git(*where, "write-tree").strip()
        told = git(*where, "diff-tree", "-r", "-z", "--numstat", empty, tree)
        lines = {
            name: numbers
            for numbers, _, name in (each.rpartition("\t") for each in told.split("\0"))
        }
        for name in files:
            if name not in lines and (by := ignored_by(name, where)):
                yield (
                    f"git ignores {name} in every new repository ({by}), and the edits in "
                    f"it would be lost: take that out, or {INSTEAD}"
                )
            elif lines.get(name, "").startswith("-"):
                yield (
                    f"git takes {name} for binary in every new repository, by a setting or "
                    "an attributes file of yours, and the edits in it would be lost: take "
                    "that out (it is core.bigFileThreshold, or in the file that git config "
                    "core.attributesFile names, in ~/.config/git/attributes or in "
                    f"info/attributes below init.templateDir), or {INSTEAD}"
                )


def ignored_by(name: str, where: Sequence[str]) -> str:
    """The file, the line and the pattern by which git ignores a file; nothing for none."""
    told = git(*where, "check-ignore", "-v", "--no-index", name, check=False)
    found = told.partition("\t")[0]
    template = ".git/info/exclude"
    if found.startswith(template):
        return f"info/exclude below init.templateDir{found.removeprefix(template)}"
    return found


def of_files(prefix: str, files: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Files that nobody sees the edits of, or that Copier misreads.

    Args:
        prefix: From the repository's top folder to this one.
    """
    for mark, name in files:
        if command := shown_again(mark, f"{prefix}{name}"):
            yield (
                f"git does not look at {prefix}{name}, and an edit of it would be lost: "
                f"{command}, then run this again"
            )
        elif Path(name).is_file() and not is_text(Path(name).read_bytes()):
            yield (
                f"{prefix}{name} is no UTF-8 text, and the edits in it would be lost: save "
                "it as UTF-8 and without NUL, commit, then run this again"
            )


def of_ignored(prefix: str, service: str) -> Iterator[str]:
    """Files of the workers that git ignores and does not know, which Copier deletes.

    Args:
        prefix: From the repository's top folder to this one.
    """
    listed = git(
        *("ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--"),
        f":(glob){service}/workers/**/*.py",
    )
    for name in filter(None, listed.split("\0")):
        if RENDERED.fullmatch(os.path.relpath(name, service)):
            shown = shlex.quote(f"{prefix}{name}")
            yield (
                f"git ignores {prefix}{name}, which would be deleted: git add -f {shown} "
                f"(git check-ignore -v {shown} tells the line), commit, then run this again"
            )


def shown_again(mark: str, name: str, *where: str) -> str:
    """The commands after which git looks at a file again; nothing where it does.

    Args:
        mark: That of `git ls-files -v`.
        where: Options of git that name the repository.
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
    """The files that Copier merges, each with git's mark and its name."""
    for entry in filter(None, git("ls-files", "-v", "-z").split("\0")):
        mark, name = entry.split(" ", 1)
        if is_merged(name, service, backend):
            yield mark, name


def rendered(template: str, service: str, backend: bool) -> set[str]:
    """The same files as the template has them: the team may have deleted one."""
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
