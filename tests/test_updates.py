"""A service of any release becomes a current one, and what its team wrote is kept."""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from chancy_workers.source import task
from copier import run_copy

from . import edits
from .releases import (
    RELEASES,
    WORKING_TREE,
    commit_all,
    read_files,
    three_way_merge,
    update,
)
from .support import (
    commit,
    database,
    environment,
    migrate,
    query,
    run,
    service,
)

ANSWERS = {
    "jobs": [
        {"name": "send_digest", "schedule": "0 7 * * mon-fri"},
        {"name": "report", "queue": "slow"},
    ],
    "queues": [{"name": "default"}, {"name": "slow", "executor": "thread"}],
}
# A backend that was there before; its types are checked, and Chancy has no py.typed.
PYPROJECT = """\
[tool.mypy]
strict = true
namespace_packages = true
explicit_package_bases = true

[[tool.mypy.overrides]]
module = "chancy.*"
follow_untyped_imports = true
"""
# Written once, then the team's.
KEPT = re.compile(
    r".*/((main|worker|test_job_\w+)\.py|workers/(?!tests/)\w+/__init__\.py)"
)
# What stays of a job that is out of the answers.
OF_A_JOB = re.compile(r".*/workers/((?!tests/)\w+/.*|tests/test_job_\w+\.py)")


@dataclass
class Update:
    """A service before and after an update, and what a fresh render would be.

    Every mapping is from the file's name, below the backend's root, to its content.
    """

    root: Path
    project: Path
    service: Path
    old: dict[str, bytes]
    team: dict[str, bytes]
    updated: dict[str, bytes]
    fresh: dict[str, bytes]
    printed: str

    def expected(self, folder: Path) -> dict[str, bytes]:
        """What git itself makes of the team's edits and the release's changes."""
        result = dict(self.team)
        for name in self.old.keys() | self.fresh.keys():
            old, team, fresh = (
                files.get(name) for files in (self.old, self.team, self.fresh)
            )
            if name.endswith(".copier-answers.yml") and fresh is not None:
                result[name] = fresh
            elif old is not None and fresh is None:
                if not OF_A_JOB.fullmatch(name) and is_unedited(name, old, team):
                    result.pop(name, None)
            elif KEPT.fullmatch(name) and team is not None:
                is_main = name == "app/billing/main.py"
                result[name] = (
                    switch_imports(self.root / name, team) if is_main else team
                )
            elif old is None and team is None and fresh is not None:
                result[name] = fresh
            elif team is not None and fresh is not None:
                result[name] = merge(name, team, old or b"", fresh, folder)
        return result


def switch_imports(path: Path, content: bytes) -> bytes:
    """A file of the service with the imports of old modules switched to the library."""
    wiring = task("wire_lifespan")
    place = wiring.service_of(path, "billing", "app.billing", "")
    switched: bytes | None = wiring.switch_imports(content, place).data
    return content if switched is None else switched


def is_unedited(name: str, old: bytes, team: bytes | None) -> bool:
    """Whether a team has left a file as it was, or gave it another layout only."""
    if team is None or team == old:
        return True
    differ_in_layout_only = task("layout").differ_in_layout_only
    return name.endswith(".py") and differ_in_layout_only(old.decode(), team.decode())


def merge(name: str, team: bytes, old: bytes, fresh: bytes, folder: Path) -> bytes:
    """A merge by git; where it conflicts, one that knows of ends and of new imports."""
    merged = three_way_merge(team, old, fresh, folder)
    if b"<<<<<<< " not in merged or "/workers/" not in name:
        return merged
    if team.startswith(old):
        return fresh + team.removeprefix(old)
    if name.endswith("chancy_initialization.py"):
        switched = task("merge_imports").with_library(
            *(text.decode() for text in (old, team, fresh))
        )
        if switched is not None:
            base, ours = (text.encode() for text in switched)
            return three_way_merge(ours, base, fresh, folder)
    return merged


def make_backend(
    folder: Path, scope: str, template: Path, version: str, **answers: object
) -> Path:
    """Renders a backend, or a service into one that is there; returns its project."""
    project = folder if scope == "backend" else folder / "app" / "billing"
    project.mkdir(parents=True)
    if scope == "service":
        (folder / "pyproject.toml").write_text(PYPROJECT)
    run_copy(
        str(template),
        project,
        data={**ANSWERS, **answers, "scope": scope, "service": "billing"},
        vcs_ref=version,
        defaults=True,
        unsafe=True,
        quiet=True,
    )
    commit(folder)
    return project


def edit_as_a_team_does(service: Path) -> None:
    """Edits in every kind of file, as many as fit into a service that works."""
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
    make_backend(fresh, scope, template, WORKING_TREE)
    old = read_files(root)
    service = root / "app" / "billing"
    edit(service)
    commit_all(root)
    team = read_files(root)
    printed = update(project)
    return Update(
        root, project, service, old, team, read_files(root), read_files(fresh), printed
    )


CASES = [
    pytest.param((release, scope), marks=pytest.mark.xdist_group(f"{release}-{scope}"))
    for release in RELEASES
    for scope in ("backend", "service")
]


@pytest.fixture(scope="session", params=CASES, ids="-".join)
def untouched(
    request: pytest.FixtureRequest,
    template: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Update:
    """An update of what nobody has edited."""
    release, scope = request.param
    folder = tmp_path_factory.mktemp("untouched")
    return updated_from(release, scope, template, folder, lambda service: None)


@pytest.fixture(scope="session", params=CASES, ids="-".join)
def edited(
    request: pytest.FixtureRequest,
    template: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Update:
    """An update of what a team has worked on."""
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


def test_every_edit_of_the_team_is_there_after_an_update(
    edited: Update, tmp_path: Path
) -> None:
    assert edited.updated == edited.expected(tmp_path)


def test_edits_beside_what_a_release_changed_do_not_conflict(edited: Update) -> None:
    assert "conflict" not in edited.printed
    for name, content in edited.updated.items():
        assert not name.endswith(".rej")
        assert b"<<<<<<<" not in content, (name, content.decode())


def test_a_second_update_changes_nothing(edited: Update) -> None:
    commit_all(edited.root)

    update(edited.project)

    assert run("git", "status", "--porcelain", cwd=edited.root).stdout == ""


def test_the_updated_service_is_clean_and_typed(
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
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
        *("-p", "no:xdist", "-p", "no:copie", "-p", "no:asyncio"),
        edited.service.relative_to(edited.root),
        cwd=edited.root,
        env=environment(WORKERS_TEST_DATABASE_URL=server_url, PYTHONPATH="."),
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
