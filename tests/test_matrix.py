"""Renders of a matrix of answers pass linters, type checkers and their tests, and boot."""

import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from harness.probes import wait_until_ready

from .support import (
    MYPY,
    OPTIONAL_PLUGINS,
    PYTEST,
    WITHOUT_ASYNCIO,
    database,
    environment,
    migrate,
    query,
    run,
    service,
    wait_for,
)

BACKEND = {"scope": "backend"}
LONG_JOB = "a_job_with_quite_a_long_name_of_forty_ch"
LONG_TAG = "a-tag-" * 10 + "123"
MATRIX: dict[str, dict[str, Any]] = {
    "backend": BACKEND,
    "service": {"service": "billing"},
    "service-without-sentry": {
        "service": "billing",
        "sentry": False,
        "jobs": [],
        "database_secret": f"A-SECRET-WITH-A-NAME-OF-69-CHARACTERS{'-X' * 16}",
    },
    "no-jobs": {**BACKEND, "jobs": [], "sentry": False},
    "many-jobs": {
        **BACKEND,
        "service": "shop",
        "jobs": [
            "job_10",
            {"name": "job_9", "schedule": "*/15 * * * *"},
            {"name": "job_100", "schedule": "30 2 l * *", "timezone": "Europe/London"},
            {"name": "a_first", "schedule": "@daily"},
            {"name": "zebra", "queue": "slow", "schedule": "0 0 * * 5#2"},
        ],
        "queues": [{"name": "slow", "executor": "thread"}],
    },
    "threads": {
        **BACKEND,
        "jobs": ["resize_image"],
        "queues": [{"name": "default", "executor": "thread", "concurrency": 4}],
    },
    "processes": {
        **BACKEND,
        "jobs": ["crunch"],
        "queues": [{"name": "default", "executor": "process", "concurrency": 1}],
    },
    "several-workers": {
        **BACKEND,
        "jobs": [
            {"name": "send_mail", "queue": "mail"},
            {"name": "report", "queue": "reports"},
        ],
        "queues": [
            {
                "name": "mail",
                "rate_limit": 1000,
                "rate_limit_window": 60,
                "tags": ["api", "mail"],
            },
            {
                "name": "reports",
                "executor": "process",
                "concurrency": 1,
                "tags": ["reports"],
            },
        ],
        "run_workers": "both",
        "workers": [
            {"tags": ["api"], "process": "api"},
            {"tags": ["reports", "mail"], "process": "own"},
            {"process": "own"},
            {},
        ],
    },
    "optional-plugins": OPTIONAL_PLUGINS,
    "start-without-database": {
        **BACKEND,
        "start_without_database": True,
        "dashboard": "in_api",
        "dashboard_secret": "DASHBOARD-PASSWORD",
    },
    "long-names": {
        **BACKEND,
        "queues": [{"name": "q" * 63, "tags": [LONG_TAG, "b", "c"]}],
        "workers": [{"tags": [LONG_TAG, "b", "c", "d"]}],
        "service": "a_service_with_quite_a_long_name_of_40_c",
        "prefix": "a_prefix_of_thirty_three_letters_",
        "jobs": [LONG_JOB, {"name": f"{LONG_JOB[:-1]}2", "schedule": "@daily"}],
        "database_secret": "A-SECRET-WITH-A-NAME-OF-FORTY-CHARACTERS",
        "dashboard": "in_api",
        "dashboard_secret": f"ANOTHER-WITH-A-NAME-OF-47-CHARACTERS{'-X' * 5}1",
    },
}
# A team's strict linters; docs/questions.md lists the rules that are ignored here.
LINT = """\
line-length = 88

[lint]
select = ["E", "F", "I", "UP", "B", "SIM", "PL", "RUF", "ANN", "D", "S"]

[lint.pydocstyle]
convention = "google"  # The house document's docstrings say what a function does.

[lint.per-file-ignores]
"**/chancy_initialization.py" = ["S105"]  # DATABASE_SECRET is a secret's name.
"**/secret_values.py" = ["PLC0415"]  # Azure's packages may be missing.
# Tests assert, with values, on commands of their own; their names say what they test.
"**/tests/*.py" = ["S101", "S603", "PLR2004", "D103"]
"""
WIDTH = 88
# Lines that cannot be broken: the row of a table, a word, the URL of the library.
UNBREAKABLE = re.compile(r"\|.*\||\s*\S+|chancy-runtime = \{.*\}")
CONNECTIONS = (
    "SELECT count(*) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@dataclass
class Render:
    """A rendered backend, or a service with the folders above it."""

    root: Path
    service: str
    package: str
    code: list[str]
    jobs: list[str]


def render_of(name: str, rendered: Callable[[str, dict[str, object]], Path]) -> Render:
    answers = MATRIX[name]
    folder = rendered(name, answers)
    jobs = [
        job if isinstance(job, str) else job["name"]
        for job in answers.get("jobs", ["send_digest"])
    ]
    service = answers.get("service", "billing")
    if answers.get("scope") == "backend":
        return Render(folder, service, f"app.{service}", ["app", "tests"], jobs)
    package = f"{folder.parent.name}.{folder.name}"
    return Render(
        folder.parents[1], service, package, [package.replace(".", "/")], jobs
    )


@pytest.fixture(
    params=[pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in MATRIX]
)
def render(
    request: pytest.FixtureRequest,
    rendered: Callable[[str, dict[str, object]], Path],
) -> Render:
    return render_of(request.param, rendered)


def test_a_team_s_own_linters_find_nothing(render: Render, tmp_path: Path) -> None:
    """They are stricter than the linters of a rendered backend."""
    config = tmp_path / "ruff.toml"
    config.write_text(LINT)
    run(
        *(sys.executable, "-m", "ruff", "check", "--no-cache", "--config", config),
        *("--ignore-noqa", *render.code),
        cwd=render.root,
    )
    of_backend = render.code[0] == "app"
    folder = render.root if of_backend else render.root / render.code[0]
    for path in folder.rglob("*"):
        if not path.is_file() or path.suffix in (".pyc", ".log"):
            continue  # A file that another test left there.
        for line in path.read_text().splitlines():
            assert len(line) <= WIDTH or UNBREAKABLE.fullmatch(line), (path, line)


def test_ruff_finds_nothing(render: Render) -> None:
    select = (
        ["--select", "E4,E7,E9,F,I,UP,B", "--ignore-noqa"]
        if render.code[0] == "app"
        else []
    )
    run(
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--no-cache",
        *select,
        *render.code,
        cwd=render.root,
    )
    run(
        sys.executable,
        "-m",
        "ruff",
        "format",
        "--no-cache",
        "--check",
        *render.code,
        cwd=render.root,
    )
    for path in render.root.joinpath(render.code[0]).rglob("*.py"):
        assert "{{" not in path.read_text() and "{%" not in path.read_text()


@pytest.mark.xdist_group("pyright")
def test_pyright_finds_nothing_in_its_strict_mode(
    rendered: Callable[[str, dict[str, object]], Path], tmp_path: Path
) -> None:
    """In all renders at once, without an override for Chancy: the library has its stubs."""
    renders = [render_of(name, rendered) for name in MATRIX]
    config = tmp_path / "pyright.json"
    environment_folder = Path(sys.executable).parents[1]
    settings = {
        "include": [str(each.root / code) for each in renders for code in each.code],
        "typeCheckingMode": "strict",
        "venvPath": str(environment_folder.parent),
        "venv": environment_folder.name,
        # The house document uses AsyncIterator, but pyright wants AsyncGenerator.
        "reportDeprecated": False,
        "executionEnvironments": [{"root": str(each.root)} for each in renders],
    }
    config.write_text(json.dumps(settings))

    run(Path(sys.executable).with_name("basedpyright"), "-p", config, cwd=tmp_path)


def test_mypy_finds_nothing_in_its_strict_mode(
    render: Render, mypy_cache: Path, tmp_path: Path
) -> None:
    config = tmp_path / "mypy.ini"
    config.write_text(MYPY)
    run(
        sys.executable,
        "-m",
        "mypy",
        *("--strict", "--config-file", str(config), "--cache-dir", str(mypy_cache)),
        *("--namespace-packages", "--explicit-package-bases"),
        *render.code,
        cwd=render.root,
    )


def test_the_rendered_tests_pass(render: Render, server_url: str) -> None:
    result = run(
        *PYTEST,
        *WITHOUT_ASYNCIO,
        *(["--import-mode=importlib"] if render.code[0] != "app" else []),
        *render.code,
        cwd=render.root,
        env=environment(WORKERS_TEST_DATABASE_URL=server_url),
    )
    assert "skipped" not in result.stdout


def test_the_service_boots_runs_a_job_and_stops(
    render: Render, server_url: str
) -> None:
    with database(server_url) as url:
        migrate(render.root, render.package, url)
        with service(
            render.root,
            f"{render.package}.main:app",
            {"WORKERS_DATABASE_URL": url, "WORKERS_MODE": "run"},
        ) as running:
            wait_until_ready(running)
            assert running.request("/")["service"] == render.service
            if render.jobs:
                running.run_job(render.jobs[0])
            running.stop()
        wait_for(
            lambda: query(url, CONNECTIONS) == [(0,)],
            what="the end of the service's connections",
        )
    if render.jobs:
        assert running.output.count(f"{render.jobs[0]} ran: request") == 1
    assert running.output.count("Started plugin 'Leadership'") >= 1
