"""The dashboard in the answers, in the messages, and in the findings of `check`."""

import ast
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from chancy_workers.dashboards import includes_dashboard

from .support import GIT, PROGRAM, check, commit, copy, refusal, run

ANSWERS = ".copier-answers.yml"
PROJECT = """\
[project]
name = "backend"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["chancy-runtime[fastapi,sentry]", "fastapi>=0.115", "psycopg[binary]"]
"""
APP = "from fastapi import FastAPI\n\napp = FastAPI()\n"


@pytest.fixture
def problems(macros_of: Callable[[str], Any]) -> Any:
    return macros_of("dashboard")


@pytest.mark.parametrize(
    ("dashboard", "run_workers", "jobs", "words"),
    [
        ("in_api", "own_process", [], "needs a Worker in the API … write own_process"),
        ("own_process", "in_api", [], "needs the second process … write in_api"),
        ("in_api", "both", ["dashboard"], "the job dashboard has the same … rename"),
        ("in_api", "both", [{"name": "dashboard"}], "the job dashboard has the same"),
    ],
)
def test_a_dashboard_without_a_place_is_refused(
    dashboard: str, run_workers: str, jobs: list[object], words: str, problems: Any
) -> None:
    message = problems.dashboard_problem(dashboard, run_workers, jobs)

    says(str(message), words)


@pytest.mark.parametrize("where", ["in_api", "own_process", "none"])
def test_a_dashboard_in_a_process_with_workers_is_accepted(
    where: str, problems: Any
) -> None:
    message = problems.dashboard_problem(where, "both", ["send_digest"])

    assert not str(message)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("correct horse", "the given value (not shown … never the password"),
        ("A_NAME", "has an underscore … write A-NAME"),
        ("DATABASE-URL", "is the secret with the database's URL: write the name of"),
    ],
)
def test_a_password_is_not_accepted_as_a_secret_s_name(
    name: str, words: str, problems: Any
) -> None:
    message = problems.dashboard_secret_problem(name, "DATABASE-URL", "backend")

    says(str(message), words)
    assert "correct horse" not in str(message)


def test_a_secret_without_a_dashboard_is_refused(tmp_path: Path) -> None:
    line = refusal(tmp_path, "-d", "dashboard_secret=DASHBOARD-PASSWORD")

    says(line, "dashboard_secret is used with a dashboard only: add -d dashboard")


@pytest.mark.parametrize(
    ("file", "text", "includes"),
    [
        ("billing/main.py", "from .workers.dashboard import router", True),
        ("billing/main.py", "from .workers.dashboard import router as shown", True),
        ("billing/main.py", "from .workers import dashboard", True),
        ("billing/api/app.py", "from ..workers import dashboard as shown", True),
        ("billing/main.py", "from app.billing.workers.dashboard import router", True),
        ("main.py", "from app.billing.workers import dashboard", True),
        ("main.py", "import app.billing.workers.dashboard as shown", True),
        ("billing/main.py", "from workers.dashboard import router", True),
        ("shipping/main.py", "from .workers.dashboard import router", False),
        ("main.py", "from app.shipping.workers.dashboard import router", False),
        ("main.py", "from app.billing.workers.dashboards import router", False),
        ("main.py", "import dashboard", False),
    ],
)
def test_an_app_that_includes_the_dashboard_is_recognized(
    file: str, text: str, includes: bool
) -> None:
    name = text.split()[-1]
    call = name if name in ("router", "shown") else f"{name}.router"
    workers = Path("/b/app/billing/workers")

    def found(code: str) -> bool:
        tree = ast.parse(code)
        return includes_dashboard(tree, Path("/b/app", file), workers, "app.billing")

    assert found(f"{text}\napp.include_router({call})") is includes
    assert found(f"{text}\napp.include_router(other)") is False


def test_check_and_update_report_what_the_app_must_include(
    released: Path, tmp_path: Path
) -> None:
    """The app and the dependencies are the team's own files."""
    root = tmp_path / "backend"
    main = root / "app/billing/main.py"
    main.parent.mkdir(parents=True)
    main.write_text(APP)
    (root / "pyproject.toml").write_text(PROJECT)
    printed = copy(
        *("app/billing", "--vcs-ref=v0.1.0", "-d", "dashboard=in_api"),
        cwd=root,
        template=released,
    ).stderr
    commit(root)

    without_extra, not_included = sorted(check(root), key=lambda each: each["file"])
    says(not_included["problem"], "does not include the dashboard")
    says(without_extra["problem"], "the dashboard needs the extra dashboard")
    says(
        without_extra["mend"],
        'add it (uv add … "chancy-runtime[dashboard,fastapi,sentry]',
    )

    lines = re.search(
        r"Include it in main\.py.*\n\n    (from .*)\n\n    (app\.include_.*)\n", printed
    )
    assert lines, printed
    main.write_text(f"{lines[1]}\n{main.read_text()}{lines[2]}\n")
    (root / "pyproject.toml").write_text(PROJECT.replace("[fast", "[dashboard,fast"))
    assert check(root) == []

    change_answers(root, dashboard="none")
    printed = run(PROGRAM, "update", cwd=root).stdout
    says(printed, "no longer in the API: remove its import … from main.py")
    says(printed, "when nothing needs them: git rm workers/dashboard.py")
    assert (root / "app/billing/workers/dashboard.py").is_file()
    (left,) = check(root)
    says(left["problem"], "includes the dashboard, but the answers have none")


def test_an_update_adds_the_dashboard_but_does_not_overwrite_a_module_of_that_name(
    released: Path, tmp_path: Path
) -> None:
    root = tmp_path / "backend"
    (root / "app/billing").mkdir(parents=True)
    (root / "pyproject.toml").write_text(PROJECT)
    copy("app/billing", "--vcs-ref=v0.1.0", cwd=root, template=released)
    main = root / "app/billing/main.py"
    (root / "app/billing/workers/dashboard.py").write_text("MINE = True\n")
    commit(root)
    change_answers(root, dashboard="in_api", dashboard_secret="DASHBOARD-PASSWORD")

    refused = run(PROGRAM, "update", cwd=root, check=False)

    assert refused.returncode == 1
    says(
        refused.stdout + refused.stderr,
        "workers/dashboard exists already … move it away",
    )
    assert "billing_dashboard" not in main.read_text()

    run(*GIT, "rm", "--quiet", "app/billing/workers/dashboard.py", cwd=root)
    main.write_text(APP)
    run(*GIT, "commit", "--quiet", "--all", "--message=away", cwd=root)
    printed = run(PROGRAM, "update", cwd=root).stdout

    says(printed, "The dashboard is now in the API: include it in main.py, after")
    says(
        printed,
        "app.include_router(billing_dashboard) … table: run python -m app.billing",
    )
    says(printed, "add the extra dashboard: uv add")
    assert (root / "app/billing/workers/dashboard.py").is_file()


def says(text: str, words: str) -> None:
    """Makes sure that a text has the words; … stands for any text between them."""
    pattern = ".*".join(map(re.escape, words.split(" … ")))
    assert re.search(pattern, text, re.DOTALL), text


def change_answers(root: Path, **changes: str) -> None:
    file = root / "app/billing" / ANSWERS
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **changes}))
    run(*GIT, "commit", "--quiet", "--all", "--message=answers", cwd=root)
