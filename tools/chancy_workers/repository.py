"""Questions to git, and what a command says when it does nothing."""

import functools
import os
import re
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

# A person's settings under which an update would lose something, or stop.
SETTINGS = {
    "apply.whitespace": "nowarn",
    "core.hooksPath": os.devnull,
    "log.showSignature": "false",
    "status.showUntrackedFiles": "all",
}
# What a scratch repository needs of a person's settings: how to reach other repositories.
REACHING = re.compile(
    r"(credential\w*|https?|protocol|ssh|url)\..+"
    r"|core\.(askpass|gitproxy|sshcommand)|safe\.directory"
)
# Variables that change what git's commands do, or what a new repository is.
CHANGING = re.compile(
    r"GIT_(DEFAULT_HASH|DIFF_OPTS|EXTERNAL_DIFF|TEMPLATE_DIR|\w+_PATHSPECS)"
)


class Refused(Exception):
    """Why nothing was done, in one line that ends with the way out."""


def git(
    folder: Path,
    *arguments: str | Path,
    input: str | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """Runs a command of git in a folder and returns what it prints.

    Args:
        env: The variables that it gets in place of `environment()`.

    Raises:
        Refused: git is missing, or the command failed; its own line says why.
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
    """Runs a command of git in a scratch repository, which has no settings of a person."""
    return git(folder, *arguments, input=input, env=alone())


def environment() -> dict[str, str]:
    """The environment in which git has SETTINGS above those of the person."""
    first = int(os.environ.get("GIT_CONFIG_COUNT") or 0)
    return {**os.environ, **_configured([*SETTINGS.items()], first)}


@functools.cache
def alone() -> dict[str, str]:
    """The environment in which git has none of the person's settings.

    Neither their ignored files and attributes, nor what they put into each new repository:
    only how to reach other repositories.
    """
    told = names(git(Path.cwd(), "config", "--list", "-z"))
    entries = [entry.partition("\n") for entry in told]
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
    """The variables that give git settings; `first` is the number of the first one."""
    variables = {"GIT_CONFIG_COUNT": str(first + len(settings))}
    for number, (name, value) in enumerate(settings, first):
        variables[f"GIT_CONFIG_KEY_{number}"] = name
        variables[f"GIT_CONFIG_VALUE_{number}"] = value
    return variables


def leave_the_caller_s_repository() -> None:
    """Takes out of the environment what git gives its hooks and aliases.

    It would be the repository of every git that a command starts, in other folders too.
    What else changes git's commands goes as well.
    """
    for name in [name for name in os.environ if CHANGING.fullmatch(name)]:
        del os.environ[name]
    try:
        listed = subprocess.run(
            ["git", "rev-parse", "--local-env-vars"], capture_output=True, text=True
        )
    except FileNotFoundError:
        return  # What needs git says so.
    for name in listed.stdout.split():
        if not name.startswith("GIT_CONFIG"):
            os.environ.pop(name, None)


def ignored(top: Path, files: Sequence[str]) -> dict[str, str]:
    """The files that git ignores and does not know, each with the line that says so.

    Args:
        files: As git names them from the top folder; they may be missing.
    """
    told = names(
        subprocess.run(
            ["git", "check-ignore", "--verbose", "-z", "--stdin"],
            cwd=top,
            input="".join(f"{name}\0" for name in files),
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
        ).stdout
    )
    lines = zip(told[::4], told[1::4], told[2::4], told[3::4], strict=False)
    return {
        name: f"{source}:{line} has {pattern}"
        for source, line, pattern, name in lines
        if not pattern.startswith("!")
    }


def refuse_ignored(top: Path, files: Sequence[str]) -> None:
    """Makes sure that git takes files of the template's, from the top folder.

    Raises:
        Refused: It ignores one that it does not know yet.
    """
    if found := ignored(top, files):
        first = next(iter(found))
        raise Refused(
            f"git ignores {first_of([*found])}, which the template renders ({found[first]}): "
            "mend that line or git add -f what is there, commit, then run this again"
        )


def reason_in(printed: str) -> str:
    """The line that says why a command failed: git's own, otherwise the last; or nothing."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    fatal = re.search("fatal: .*", printed)
    return fatal[0] if fatal else (lines or [""])[-1]


def first_of(files: Sequence[str]) -> str:
    """The first few of many files, for a message."""
    return ", ".join(files[:3]) + (", …" if len(files) > 3 else "")


def names(output: str) -> list[str]:
    """The names that git printed with -z."""
    return [name for name in output.split("\0") if name]


def files_like(folder: Path, pattern: str) -> list[str]:
    """The files below a folder by the last part of their path, not in ignored folders.

    A file that is itself ignored is among them.
    """
    glob = f":(glob)**/{pattern}"
    listed = git(folder, "ls-files", "-z", "-co", "--exclude-standard", "--", glob)
    options = ("-z", "-oi", "--exclude-standard", "--directory")
    listed += git(folder, "ls-files", *options, "--", glob)
    found = sorted({*names(listed)})
    return [name for name in found if (folder / name).is_file()]


def files_with(pattern: str, folder: Path, *where: str) -> list[str]:
    """The files below a folder in which git finds a text, also those not committed yet.

    Args:
        pattern: An extended regular expression.
        where: The pathspecs of the files to look into.
    """
    options = ("--untracked", "-l", "-z", "-I", "-E")
    try:
        return names(git(folder, "grep", *options, "-e", pattern, "--", *where))
    except Refused:  # Nothing is found.
        return []


def top_of(folder: Path) -> Path:
    """The top folder of the repository that a folder is in.

    Raises:
        Refused: It is in none, or in one without a commit.
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
                f"{owned[1]} belongs to somebody else, and git reads nothing there: run git "
                f"config --global --add safe.directory {shlex.quote(owned[1])}"
            ) from error
        raise Refused(
            f"{folder} is in no git repository with a commit in it, and what an update "
            "changes could not be seen: run git init, then commit everything"
        ) from error
    return Path(top)
