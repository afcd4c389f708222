"""The reports of a rendered service: to Sentry over HTTP, and to its log stream."""

from pathlib import Path

import pytest

from harness.sentry import sentry

from .support import (
    PYTEST,
    WITHOUT_ASYNCIO,
    copy,
    environment,
    migrate,
    query,
    run,
    service,
    wait_for,
)


def test_the_rendered_tests_send_nothing_to_the_user_s_sentry(
    backend: Path, server_url: str
) -> None:
    with sentry() as (dsn, events):
        run(
            *(*PYTEST, *WITHOUT_ASYNCIO, "app/billing/workers/tests"),
            cwd=backend,
            env=environment(WORKERS_TEST_DATABASE_URL=server_url, SENTRY_DSN=dsn),
        )

    assert events == []


@pytest.mark.parametrize("scope", ["backend", "service"])
def test_every_line_is_logged_once(
    scope: str, tmp_path: Path, backend: Path, database_url: str
) -> None:
    folder = backend
    if scope == "service":
        folder = tmp_path
        (folder / "pyproject.toml").touch()
        copy("app/billing", cwd=folder)
    migrate(folder, "app.billing", database_url)

    with service(
        folder, "app.billing.main:app", {"WORKERS_DATABASE_URL": database_url}
    ) as running:
        running.run_job("send_digest")
        running.stop()

    lines = running.output.splitlines()
    for text in (
        "Started plugin 'Cron'",
        "Started listening for notifications.",
        "send_digest ran: request",
        "Application startup complete",
        '"POST /jobs/send_digest HTTP/1.1" 202',
    ):
        assert len([line for line in lines if text in line]) == 1, running.output
    assert all("INFO" in line for line in lines), running.output


def test_the_log_level_comes_from_the_environment(
    backend: Path, database_url: str
) -> None:
    migrate(backend, "app.billing", database_url)

    with service(
        backend,
        "app.billing.main:app",
        {"WORKERS_DATABASE_URL": database_url, "LOG_LEVEL": "warning"},
        wait=False,
    ) as running:
        wait_for(
            lambda: query(database_url, "SELECT 1 FROM billing_workers"),
            what="the worker's row",
        )
        running.process.terminate()
        running.process.wait(60)

    assert running.output == ""
