"""A service of the oldest release still works after the working tree's migrations."""

from pathlib import Path

import pytest

from .releases import RELEASES
from .support import alarms, copy, migrate, service

PACKAGE = "app.billing"


@pytest.mark.parametrize("release", [*RELEASES][:1])
def test_a_service_of_an_older_release_works_on_the_tables_of_the_working_tree(
    release: str, template: Path, backend: Path, tmp_path: Path, database_url: str
) -> None:
    old = tmp_path / "backend"
    version = f"--vcs-ref={release}"
    copy(old, version, "--data=scope=backend", cwd=tmp_path, template=template)
    migrate(old, PACKAGE, database_url)
    variables = {"WORKERS_DATABASE_URL": database_url}
    with service(old, f"{PACKAGE}.main:app", variables) as running:
        running.run_job("send_digest")

        migrate(backend, PACKAGE, database_url)

        running.run_job("send_digest")
        with service(old, f"{PACKAGE}.main:app", variables) as started:
            started.run_job("send_digest")
            started.stop()
        running.stop()
        assert alarms(running) == []
