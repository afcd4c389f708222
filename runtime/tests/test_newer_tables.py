"""In a rollout the tables are migrated first; old processes keep working on new tables."""

from harness.databases import query, tables
from harness.recorder import Recorder, make_tables
from harness.services import alarms

# Enough that each connection of the pool has prepared its statements.
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
    backend: Recorder, database_url: str
) -> None:
    make_tables(database_url)
    with backend.service(database_url) as running:
        for _ in range(JOBS):
            running.run_job("record")

        migrate_as_a_later_version(database_url)

        for _ in range(JOBS):
            running.run_job("record")
        running.stop()
        assert alarms(running) == []
    with backend.service(database_url) as started:
        started.run_job("record")
        started.stop()
        assert alarms(started) == []


def test_the_command_of_an_older_version_leaves_the_tables_as_they_are(
    backend: Recorder, database_url: str
) -> None:
    make_tables(database_url)
    migrate_as_a_later_version(database_url)
    applied = "SELECT * FROM billing_schema_version ORDER BY version_of"
    before = query(database_url, applied)

    for command in ("migrate", "status"):
        result = backend.command(command, url=database_url)

        assert "chancy: v1 to v9 applied by a later version" in result.stdout
        assert query(database_url, applied) == before
