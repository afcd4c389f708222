"""A service of any release is updated to the current one, and its team's edits are kept."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from . import edits
from .releases import (
    ALWAYS,
    RELEASES,
    WORKING_TREE,
    commit_all,
    read_files,
    update,
)
from .support import (
    PYTEST,
    WITHOUT_ASYNCIO,
    database,
    environment,
    migrate,
    query,
    run,
    service,
)
from .updates import KEPT, Update, kept_answers, make_backend, switch_imports


def edit_as_a_team_does(service: Path) -> None:
    """Makes edits in every kind of file such that the service still works."""
    edits.change_pool_size(service, 2, 4)
    edits.change_queue(service, 7)
    edits.add_cron_job(service, "tidy_up")
    edits.rewrite_job(service, "send_digest", "the team's")
    edits.rewrite_main(service)
    edits.add_line(service, "workers/chancy_instance.py")
    edits.add_line(service, "workers/tests/conftest.py")
    edits.add_line(service, "workers/tests/test_chancy_jobs.py")
    edits.add_file(service, "workers/helpers/mail.py")
    edits.delete_file(service, "workers/tests/test_chancy_lifespan.py")
    edits.move_file(service, "workers/report/worker.py", "workers/report/work.py")
    for name in (
        "workers/chancy_initialization.py",
        "workers/tests/test_job_report.py",
    ):
        path = service / name
        path.write_text(path.read_text().replace("report.worker", "report.work"))


def updated_from(
    release: str,
    scope: str,
    template: Path,
    folder: Path,
    edit: Callable[[Path], None],
) -> Update:
    root, fresh = folder / "old" / "backend", folder / "new" / "backend"
    project = make_backend(root, scope, template, release)
    make_backend(fresh, scope, template, WORKING_TREE, **kept_answers(release))
    old = read_files(root)
    service = root / "app" / "billing"
    edit(service)
    commit_all(root)
    team = read_files(root)
    printed = update(project)
    return Update(
        root, project, service, old, team, read_files(root), read_files(fresh), printed
    )


def cases(*, always: Callable[[str, str], bool]) -> list[Any]:
    """A release and a scope for each case; some cases run only with --slow."""
    return [
        pytest.param(
            (release, scope),
            marks=[
                pytest.mark.xdist_group(f"{release}-{scope}"),
                *([] if always(release, scope) else [pytest.mark.slow]),
            ],
        )
        for release in RELEASES
        for scope in ("backend", "service")
    ]


UNTOUCHED = cases(always=lambda release, scope: release in ALWAYS or scope == "service")
EDITED = cases(always=lambda release, scope: release in ALWAYS)


@pytest.fixture(scope="session", params=UNTOUCHED, ids="-".join)
def untouched(
    request: pytest.FixtureRequest,
    template: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Update:
    """An update of a service without edits."""
    release, scope = request.param
    folder = tmp_path_factory.mktemp("untouched")
    return updated_from(release, scope, template, folder, lambda service: None)


@pytest.fixture(scope="session", params=EDITED, ids="-".join)
def edited(
    request: pytest.FixtureRequest,
    template: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Update:
    """An update of a service with a team's edits."""
    release, scope = request.param
    folder = tmp_path_factory.mktemp("edited")
    return updated_from(release, scope, template, folder, edit_as_a_team_does)


def test_without_edits_an_update_equals_a_fresh_render(untouched: Update) -> None:
    def compared(files: dict[str, bytes]) -> dict[str, bytes]:
        ours = re.compile(r".*/(main|worker|test_job_\w+)\.py")
        return {name: text for name, text in files.items() if not ours.fullmatch(name)}

    assert compared(untouched.updated) == compared(untouched.fresh)
    for name in untouched.old:
        if KEPT.fullmatch(name):
            old = untouched.old[name]
            if name == "app/billing/main.py":
                old = switch_imports(untouched.root / name, old)
            assert untouched.updated[name] == old


def test_every_edit_of_the_team_is_kept_by_an_update(
    edited: Update, tmp_path: Path
) -> None:
    assert edited.updated == edited.expected(tmp_path)


def test_edits_beside_a_release_s_changes_do_not_conflict(edited: Update) -> None:
    assert "conflict" not in edited.printed
    for name, content in edited.updated.items():
        assert not name.endswith(".rej")
        assert b"<<<<<<<" not in content, (name, content.decode())


def test_a_second_update_changes_nothing(edited: Update) -> None:
    commit_all(edited.root)

    update(edited.project)

    assert run("git", "status", "--porcelain", cwd=edited.root).stdout == ""


def test_ruff_and_mypy_find_nothing_in_the_updated_service(
    edited: Update, mypy_cache: Path
) -> None:
    package = edited.service.relative_to(edited.root)
    for command in (
        ("ruff", "check", "--no-cache", "--isolated"),
        ("ruff", "format", "--no-cache", "--isolated", "--check"),
        ("mypy", f"--cache-dir={mypy_cache}"),
    ):
        run(sys.executable, "-m", *command, package, cwd=edited.root)


def test_the_updated_service_passes_its_own_tests(
    edited: Update, server_url: str
) -> None:
    run(
        *PYTEST,
        *WITHOUT_ASYNCIO,
        edited.service.relative_to(edited.root),
        cwd=edited.root,
        env=environment(WORKERS_TEST_DATABASE_URL=server_url),
    )


def test_the_updated_service_boots_and_runs_the_team_s_jobs(
    edited: Update, server_url: str
) -> None:
    with database(server_url) as url:
        migrate(edited.root, "app.billing", url)
        variables = {"WORKERS_DATABASE_URL": url}
        with service(edited.root, "app.billing.main:app", variables) as running:
            running.run_job("send_digest")
            running.stop()
        scheduled = query(url, "SELECT unique_key FROM billing_cron ORDER BY 1")
        assert ("cron:tidy_up",) in scheduled
