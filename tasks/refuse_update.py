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
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

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
# Settings of git, with the values under which nothing is lost.
SETTINGS = {
    "apply.whitespace": ("", "nowarn", "warn"),
    "status.showUntrackedFiles": ("", "normal", "all", "true", "yes", "on", "1"),
}


def main(answers_file: str, template: str) -> int:
    """Returns the exit status, 1 with one line when there is a reason.

    Args:
        template: A clone of its repository.
    """
    answers = yaml.safe_load(Path(answers_file).read_text(encoding="utf-8"))
    backend = answers["scope"] == "backend"
    service = f"app/{answers['service']}" if backend else "."
    prefix = git("rev-parse", "--show-prefix").rstrip("\n")
    files = [*merged_files(service, backend)]
    for reason in chain(
        of_folders(answers_file, service, backend),
        of_settings(),
        of_attributes(template, [f"{prefix}{name}" for _, name in files]),
        of_names(),
        of_files(prefix, files),
        of_ignored(prefix, service),
    ):
        print(f"nothing is updated: {reason}", file=sys.stderr)
        return 1
    return 0


def of_folders(answers_file: str, service: str, backend: bool) -> Iterator[str]:
    """Folders that the template renders into and that are links, or not there."""
    above = ("app", "tests", service) if backend else ()
    for folder in (*above, f"{service}/workers", f"{service}/workers/tests"):
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
                f"config --show-origin {name} tells where it is), or run chancy-workers "
                "update, which goes without it"
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


def of_attributes(template: str, files: Sequence[str]) -> Iterator[str]:
    """Files that a person's attributes make binary, in Copier's own folders too."""
    if not files:
        return
    told = git("-C", template, "check-attr", "-z", "diff", "--", *files).split("\0")
    for name, value in zip(told[::3], told[2::3], strict=False):
        if value == "unset":
            yield (
                f"git takes {name} for binary by an attributes file of yours, and the edits "
                "in it would be lost: take that out (it is where git config "
                "core.attributesFile says, or ~/.config/git/attributes), or run chancy-workers "
                "update, which goes without it"
            )


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
        if OF_WORKERS.fullmatch(os.path.relpath(name, service)):
            yield mark, name
        elif backend and (
            OF_BACKEND.fullmatch(name) or name == f"{service}/__init__.py"
        ):
            yield mark, name


def is_text(content: bytes) -> bool:
    try:
        return "\0" not in content.decode()
    except UnicodeDecodeError:
        return False


def git(*arguments: str, check: bool = True) -> str:
    result = subprocess.run(
        ["git", *arguments],
        check=check,
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
    )
    return result.stdout


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
