"""Helpers that the template's tests share: Copier's commands, and the harness."""

import json
import subprocess
import sys
from pathlib import Path

from harness.commands import environment, run, wait_for
from harness.databases import database, query, tables, url_of
from harness.services import Service, alarms, migrate, service

__all__ = [
    "COPIER",
    "GIT",
    "MYPY",
    "OPTIONAL_PLUGINS",
    "PROGRAM",
    "PYTEST",
    "SCHEDULED",
    "SECRET_VARIABLE",
    "TEMPLATE",
    "WITHOUT_ASYNCIO",
    "Service",
    "alarms",
    "check",
    "commit",
    "copy",
    "database",
    "environment",
    "migrate",
    "query",
    "refusal",
    "run",
    "service",
    "tables",
    "url_of",
    "wait_for",
]

TEMPLATE = Path(__file__).parents[1]
COPIER = [sys.executable, "-m", "copier"]
PROGRAM = Path(sys.executable).with_name("chancy-workers")
GIT = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.invalid"]
# Runs a service's tests without pytest plugins that only this suite needs.
PYTEST = [
    *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"),
    *("-p", "no:copie", "-p", "no:hypothesispytest"),
]
WITHOUT_ASYNCIO = ("-p", "no:asyncio")
MYPY = """\
[mypy]
strict = True
"""
# Answers with which the workers' process has all optional parts.
OPTIONAL_PLUGINS: dict[str, object] = {
    "scope": "backend",
    "run_workers": "own_process",
    "metrics": True,
    "workflow": True,
    "dashboard": "own_process",
}
# The answer that was the default up to v0.5.0.
SCHEDULED = ("-d", 'jobs=[{name: send_digest, schedule: "0 7 * * mon-fri"}]')
SECRET_VARIABLE = "POSTGRES_SUPABASE_SESSION_POOLER_URL"


def copy(
    destination: str | Path,
    *arguments: str,
    cwd: Path,
    template: Path | str = TEMPLATE,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Runs `copier copy` with the default at every prompt, by default from the working tree."""
    return run(
        *COPIER,
        "copy",
        "--trust",
        "--defaults",
        *(["--vcs-ref=HEAD"] if template == TEMPLATE else []),
        *arguments,
        template,
        destination,
        cwd=cwd,
        check=check,
    )


def commit(folder: Path) -> None:
    """Makes a repository of a folder and commits everything in it."""
    run("git", "init", "--quiet", cwd=folder)
    run("git", "add", "--all", cwd=folder)
    run(*GIT, "commit", "--quiet", "--message=all", cwd=folder)


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {
        path: path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def refusal(folder: Path, *arguments: str, to: str = "app/billing") -> str:
    """The last line of a refused copy; makes sure that it wrote nothing and no secret."""
    before = contents(folder)
    result = copy(to, *arguments, cwd=folder, check=False)
    assert result.returncode != 0
    assert contents(folder) == before
    assert "hunter2" not in result.stdout + result.stderr
    return result.stderr.splitlines()[-1]


def check(root: Path, *arguments: str, **variables: str) -> list[dict[str, str]]:
    """The errors that `check` finds, without notices; its exit status must match."""
    result = run(
        PROGRAM,
        "check",
        "--format=json",
        *arguments,
        cwd=root,
        env=environment(**variables),
        check=False,
    )
    assert result.stdout, result.stderr
    found: list[dict[str, str]] = json.loads(result.stdout)
    errors = [each for each in found if each["level"] == "error"]
    assert result.returncode == bool(errors)
    return errors
