"""Runs git commands, and has the error for a command that does nothing."""

import functools
import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

# Settings with safe values; with other values an update would lose edits, or stop.
SETTINGS = {
    "apply.whitespace": "nowarn",
    "core.hooksPath": os.devnull,
    "log.showSignature": "false",
    "status.showUntrackedFiles": "all",
}
# The user's settings that a scratch repository needs to reach other repositories.
REACHING = re.compile(
    r"(credential\w*|https?|protocol|ssh|url)\..+"
    r"|core\.(askpass|gitproxy|sshcommand)|safe\.directory"
)
# Variables that change what git's commands do, or how a new repository is made.
CHANGING = re.compile(
    r"GIT_(DEFAULT_HASH|DIFF_OPTS|EXTERNAL_DIFF|TEMPLATE_DIR|\w+_PATHSPECS)"
)


class Refused(Exception):
    """The reason why nothing was done, in one line that ends with the way out."""


def git(
    folder: Path,
    *arguments: str | Path,
    input: str | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Runs a git command in a folder and returns its output.

    Args:
        env: The environment, instead of `environment()`.

    Raises:
        Refused: git is missing, or the command failed; the message has git's reason.
    """
    command = ["git", *map(str, arguments)]
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            env={**(env or environment()), "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"},
            input=input,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
        )
    except FileNotFoundError as error:
        raise Refused("git is not installed: install it") from error
    if result.returncode != 0:
        reason = reason_in(result.stderr) or f"exit {result.returncode}"
        raise Refused(f"git {arguments[0]} in {folder}: {reason}")
    return result.stdout


def git_alone(folder: Path, *arguments: str | Path, input: str | None = None) -> str:
    """Runs a git command in a scratch repository, without the user's settings."""
    return git(folder, *arguments, input=input, env=alone())


def environment() -> dict[str, str]:
    """The environment in which SETTINGS override the user's git settings."""
    first = int(os.environ.get("GIT_CONFIG_COUNT") or 0)
    return {**os.environ, **_configured([*SETTINGS.items()], first)}


@functools.cache
def alone() -> dict[str, str]:
    """The environment in which git has none of the user's settings.

    Ignored files, attributes and templates for new repositories are left out. Only the
    settings that reach other repositories are kept.
    """
    listed = names(git(Path.cwd(), "config", "--list", "-z"))
    entries = [entry.partition("\n") for entry in listed]
    reaching = [
        (key, value if newline else "true")
        for key, newline, value in entries
        if REACHING.fullmatch(key)
    ]
    nothing = {"core.excludesFile": os.devnull, "core.attributesFile": os.devnull}
    variables = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("GIT_CONFIG")
    }
    return {
        **variables,
        **_configured([*reaching, *SETTINGS.items(), *nothing.items()], 0),
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_DEFAULT_HASH": "sha1",
        "GIT_TEMPLATE_DIR": "",
    }


def _configured(settings: Sequence[tuple[str, str]], first: int) -> dict[str, str]:
    """The variables that pass settings to git; `first` is the number of the first one."""
    variables = {"GIT_CONFIG_COUNT": str(first + len(settings))}
    for number, (name, value) in enumerate(settings, first):
        variables[f"GIT_CONFIG_KEY_{number}"] = name
        variables[f"GIT_CONFIG_VALUE_{number}"] = value
    return variables


def leave_the_caller_s_repository() -> None:
    """Removes the variables from the environment that git sets for hooks and aliases.

    With them every git command, also in other folders, would use the caller's repository.
    Other variables that change git's commands are removed, too.
    """
    for name in [name for name in os.environ if CHANGING.fullmatch(name)]:
        del os.environ[name]
    try:
        listed = subprocess.run(
            ["git", "rev-parse", "--local-env-vars"], capture_output=True, text=True
        )
    except FileNotFoundError:
        return  # The commands that need git report that it is missing.
    for name in listed.stdout.split():
        if not name.startswith("GIT_CONFIG"):
            os.environ.pop(name, None)


def ignored(top: Path, files: Sequence[str]) -> dict[str, str]:
    """The untracked files that git ignores, each with the line that causes it.

    Args:
        files: Paths from the top folder; they may be missing.
    """
    fields = names(
        subprocess.run(
            ["git", "check-ignore", "--verbose", "-z", "--stdin"],
            cwd=top,
            input="".join(f"{name}\0" for name in files),
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
        ).stdout
    )
    lines = zip(fields[::4], fields[1::4], fields[2::4], fields[3::4], strict=False)
    return {
        name: f"{source}:{line} has {pattern}"
        for source, line, pattern, name in lines
        if not pattern.startswith("!")
    }


def refuse_ignored(top: Path, files: Sequence[str]) -> None:
    """Makes sure that git does not ignore rendered files.

    Args:
        files: Paths from the top folder.

    Raises:
        Refused: git ignores a file that it does not track yet.
    """
    if found := ignored(top, files):
        first = next(iter(found))
        raise Refused(
            f"git ignores {first_of([*found])}, which the template renders ({found[first]}): "
            "correct that line, or git add -f the existing files, commit, then run this again"
        )


def reason_in(printed: str) -> str:
    """The reason in the output of a failed command: git's "fatal:" line, or the last line."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    fatal = re.search("fatal: .*", printed)
    return fatal[0] if fatal else (lines or [""])[-1]


def first_of(files: Sequence[str]) -> str:
    """The first files of a list, for a message."""
    return ", ".join(files[:3]) + (", …" if len(files) > 3 else "")


def names(output: str) -> list[str]:
    """The names in the output of a git command with -z."""
    return [name for name in output.split("\0") if name]


def files_like(folder: Path, pattern: str) -> list[str]:
    """The files below a folder whose names match a pattern, without ignored folders.

    A file that is itself ignored is listed.
    """
    glob = f":(glob)**/{pattern}"
    listed = git(folder, "ls-files", "-z", "-co", "--exclude-standard", "--", glob)
    options = ("-z", "-oi", "--exclude-standard", "--directory")
    listed += git(folder, "ls-files", *options, "--", glob)
    found = sorted({*names(listed)})
    return [name for name in found if (folder / name).is_file()]


def files_with(pattern: str, folder: Path, *where: str) -> list[str]:
    """The files below a folder in which git finds a pattern, also untracked files.

    Args:
        pattern: An extended regular expression.
        where: The pathspecs of the files to search.
    """
    options = ("--untracked", "-l", "-z", "-I", "-E")
    try:
        return names(git(folder, "grep", *options, "-e", pattern, "--", *where))
    except Refused:  # Nothing is found.
        return []


def top_of(folder: Path) -> Path:
    """The top folder of a folder's repository.

    Raises:
        Refused: The folder is not in a repository, or the repository has no commit.
    """
    try:
        top = git(folder, "rev-parse", "--show-toplevel").rstrip("\n")
        git(folder, "rev-parse", "--verify", "HEAD")
    except Refused as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise
        if owned := re.search(
            r"(?:ownership .*at |unsafe repository \()'(.+?)'", str(error)
        ):
            raise Refused(
                f"{owned[1]} belongs to another user, so git reads nothing there: run git "
                f"config --global --add safe.directory {shlex.quote(owned[1])}"
            ) from error
        raise Refused(
            f"{folder} is not in a git repository with a commit, so the changes of an update "
            "could not be seen: run git init, then commit everything"
        ) from error
    return Path(top)
