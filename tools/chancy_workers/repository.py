"""Questions to git, and what a command says when it does nothing."""

import os
import re
import subprocess
from pathlib import Path


class Refused(Exception):
    """Why nothing was done, in one line that ends with the way out."""


def git(folder: Path, *arguments: str | Path, input: str | None = None) -> str:
    """Runs a command of git in a folder and returns what it prints.

    Raises:
        Refused: git is missing, or the command failed; its own line says why.
    """
    command = ["git", *map(str, arguments)]
    try:
        result = subprocess.run(
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C", "GIT_OPTIONAL_LOCKS": "0"},
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


def reason_in(printed: str) -> str:
    """The line that says why a command failed: git's own, otherwise the last; or nothing."""
    lines = [line.strip() for line in printed.splitlines() if line.strip()]
    fatal = re.search("fatal: .*", printed)
    return fatal[0] if fatal else (lines or [""])[-1]


def names(output: str) -> list[str]:
    """The names that git printed with -z."""
    return [name for name in output.split("\0") if name]


def top_of(folder: Path) -> Path:
    """The top folder of the repository that a folder is in.

    Raises:
        Refused: It is in none, or in one without a commit.
    """
    try:
        top = git(folder, "rev-parse", "--show-toplevel").rstrip("\n")
        git(folder, "rev-parse", "--verify", "HEAD")
    except Refused as error:
        raise Refused(
            f"{folder} is in no git repository with a commit in it, and what an update "
            "changes could not be seen: run git init, then commit everything"
        ) from error
    return Path(top)
