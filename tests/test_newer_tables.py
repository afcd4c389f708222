"""In a rollout the tables are migrated first, and old processes go on on new tables."""

import sys
from pathlib import Path

import pytest

from .releases import RELEASES
from .support import (
    alarms,
    copy,
    environment,
    migrate,
    query,
    run,
    service,
    tables,
)

PACKAGE = "app.billing"
# So many that each connection of the pool has prepared what it is asked.
JOBS = 40


def migrate_as_a_later_version(url: str) -> None:
    """Gives every table a column and every part a migration that this version lacks."""
    for table in tables(url):
        query(url, f"ALTER TABLE {table} ADD COLUMN of_a_later_version text")
    query(
        url,
        "UPDATE billing_schema_version SET version = version + 1 "
        "WHERE version_of <> 'deployment'",
    )


def test_a_service_goes_on_and_starts_on_the_tables_of_a_later_version(
    backend: Path, database_url: str
) -> None:
    migrate(backend, PACKAGE, database_url)
    variables = {"WORKERS_DATABASE_URL": database_url}
    with service(backend, f"{PACKAGE}.main:app", variables) as running:
        for _ in range(JOBS):
            running.run_job("send_digest")

        migrate_as_a_later_version(database_url)

        for _ in range(JOBS):
            running.run_job("send_digest")
        running.stop()
        assert alarms(running) == []
    with service(backend, f"{PACKAGE}.main:app", variables) as started:
        started.run_job("send_digest")
        started.stop()
        assert alarms(started) == []


def test_the_command_of_an_older_version_leaves_the_tables_as_they_are(
    backend: Path, database_url: str
) -> None:
    migrate(backend, PACKAGE, database_url)
    migrate_as_a_later_version(database_url)
    applied = "SELECT * FROM billing_schema_version ORDER BY version_of"
    before = query(database_url, applied)

    for command in ("migrate", "status"):
        result = run(
            *(sys.executable, "-m", f"{PACKAGE}.workers", command),
            cwd=backend,
            env=environment(WORKERS_DATABASE_URL=database_url),
        )

        assert "chancy: v1 to v9 applied by a later version" in result.stdout
        assert query(database_url, applied) == before


@pytest.mark.parametrize("release", [*RELEASES][:1] + [*RELEASES][-1:])
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
