"""Services of older releases run beside new ones, and on the working tree's library."""

import sys
from pathlib import Path

import pytest
from packaging.version import Version

from harness.probes import wait_until_ready

from .releases import RELEASES, WORKING_TREE
from .support import (
    PYTEST,
    Service,
    alarms,
    copy,
    environment,
    migrate,
    query,
    run,
    service,
    wait_for,
)

PACKAGE = "app.billing"
APP = f"{PACKAGE}.main:app"
# The last release whose services contain their own copy of the machinery.
LAST_OF_COPIES = "v0.4.1"
WITHOUT_A_DATABASE = """
from app.billing.main import app
from app.billing.workers.chancy_instance import get_chancy
from fastapi.testclient import TestClient

with TestClient(app) as client:
    assert client.get("/health/live").status_code == 200
    assert get_chancy().is_open
"""
ON_THE_LIBRARY = [each for each in RELEASES if Version(each) >= Version("0.5.0")]


def render(release: str, template: Path, folder: Path) -> Path:
    """Renders a backend with a release."""
    option = f"--vcs-ref={release}"
    copy(folder, option, "--data=scope=backend", cwd=folder.parent, template=template)
    return folder


def rows(url: str) -> list[object]:
    """The rows of queues and schedules."""
    return [
        query(url, "SELECT * FROM billing_queues ORDER BY name"),
        query(url, "SELECT * FROM billing_cron ORDER BY unique_key"),
    ]


def run_jobs_by(running: Service, url: str, others: set[str]) -> None:
    """Pushes jobs until one has run in a worker that is not among `others`."""

    def ran_here() -> bool:
        running.run_job("send_digest")
        workers = query(url, "SELECT DISTINCT taken_by FROM billing_jobs")
        return bool({worker for (worker,) in workers} - others)

    wait_for(ran_here, what="a job in the other process")


def workers(url: str) -> set[str]:
    return {id for (id,) in query(url, "SELECT worker_id FROM billing_workers")}


def test_processes_without_and_with_the_library_run_side_by_side(
    template: Path, backend: Path, tmp_path: Path, database_url: str
) -> None:
    old = render(LAST_OF_COPIES, template, tmp_path / "old")
    migrate(old, PACKAGE, database_url)
    variables = {"WORKERS_DATABASE_URL": database_url}
    with service(old, APP, variables) as before:
        wait_until_ready(before)
        before.run_job("send_digest")
        of_before, was = workers(database_url), rows(database_url)
        with service(backend, APP, variables) as after:
            wait_until_ready(after)

            assert rows(database_url) == was
            run_jobs_by(after, database_url, of_before)
            ((leaders,),) = query(database_url, "SELECT count(*) FROM billing_leader")
            assert leaders == 1

            before.stop()
            after.run_job("send_digest")
            wait_for(
                lambda: query(
                    database_url,
                    "SELECT 1 FROM billing_leader WHERE worker_id = ANY(%s)",
                    list(workers(database_url)),
                ),
                what="a leader among the new processes",
            )
            after.stop()
            # The old service made the tables: the new one warns only of the indexes.
            (line,) = alarms(after)
            assert "lack the library's indexes" in line
            assert f"run python -m {PACKAGE}.workers migrate" in line
        assert alarms(before) == []
    states = query(database_url, "SELECT DISTINCT state, attempts FROM billing_jobs")
    assert states == [("succeeded", 1)]


def test_a_rollback_to_a_service_with_its_own_machinery_keeps_its_rows(
    template: Path, backend: Path, tmp_path: Path, database_url: str
) -> None:
    old = render(LAST_OF_COPIES, template, tmp_path / "old")
    migrate(backend, PACKAGE, database_url)
    variables = {"WORKERS_DATABASE_URL": database_url}
    with service(backend, APP, variables) as after:
        after.run_job("send_digest")
        after.stop()
    was = rows(database_url)

    with service(old, APP, variables) as before:
        before.run_job("send_digest")
        assert rows(database_url) == was
        before.stop()
        assert alarms(before) == []


@pytest.mark.parametrize("release", [*ON_THE_LIBRARY, WORKING_TREE])
def test_a_service_of_a_release_works_on_the_library_of_the_working_tree(
    release: str, template: Path, tmp_path: Path, server_url: str, database_url: str
) -> None:
    backend = render(release, template, tmp_path / "backend")
    tests = run(
        *(*PYTEST, "app"),
        cwd=backend,
        env=environment(WORKERS_TEST_DATABASE_URL=server_url),
    )
    assert " passed" in tests.stdout
    without = (sys.executable, "-c", WITHOUT_A_DATABASE)
    run(*without, cwd=backend, env=environment(WORKERS_MODE="off"))

    migrate(backend, PACKAGE, database_url)
    variables = {"WORKERS_DATABASE_URL": database_url}
    with service(backend, APP, variables) as running:
        wait_until_ready(running)
        running.run_job("send_digest")
        running.stop()
        assert alarms(running) == []
