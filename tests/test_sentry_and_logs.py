"""What a running service reports: to Sentry over HTTP, and to its log stream."""

import sys
from pathlib import Path

import pytest

from .sentry import sentry
from .support import copy, environment, migrate, query, run, service, wait_for

FAILING_JOB = '''"""The fail job."""

from chancy import job


@job(queue="default")
async def fail(*, note: str = "cron") -> None:
    """Always fails."""
    raise RuntimeError(f"no luck: {note}")
'''


@pytest.mark.parametrize("executor", ["async", "thread", "process"])
def test_a_failing_job_is_exactly_one_event_that_says_where_it_ran(
    executor: str, tmp_path: Path, database_url: str
) -> None:
    folder = tmp_path / "backend"
    copy(
        folder,
        *("-d", "scope=backend", "-d", "jobs=[fail]"),
        *("-d", f"queues=[{{name: default, executor: {executor}}}]"),
        cwd=tmp_path,
    )
    text = FAILING_JOB if executor == "async" else FAILING_JOB.replace("async ", "")
    (folder / "app/billing/workers/fail/worker.py").write_text(text)
    migrate(folder, "app.billing", database_url)

    with sentry() as (dsn, events):
        with service(
            folder,
            "app.billing.main:app",
            {"WORKERS_DATABASE_URL": database_url, "SENTRY_DSN": dsn},
        ) as running:
            id = running.request("/jobs/fail", "POST")["id"]
            wait_for(
                lambda: running.request(f"/jobs/{id}")["state"] == "failed",
                timeout=30,
                what="the failure of the job",
            )
            # sentry-sdk sends what is left before the process ends.
            running.stop()

    (event,) = events
    ((taken_by, errors),) = query(
        database_url, "SELECT taken_by, errors FROM billing_jobs"
    )
    assert event["tags"] == event["tags"] | {
        "service": "billing",
        "chancy.func": "app.billing.workers.fail.worker.fail",
        "chancy.queue": "default",
        "chancy.worker": taken_by,
    }
    assert id in event["extra"]["chancy.job_id"]
    (exception, *_) = event["exception"]["values"][-1:]
    assert (exception["type"], exception["value"]) == (
        "RuntimeError",
        "no luck: request",
    )
    assert "no luck: request" in errors[0]["traceback"]


def test_without_a_dsn_nothing_is_sent(backend: Path, database_url: str) -> None:
    migrate(backend, "app.billing", database_url)

    with sentry() as (_dsn, events):
        with service(
            backend, "app.billing.main:app", {"WORKERS_DATABASE_URL": database_url}
        ) as running:
            running.run_job("send_digest")
            running.stop()

    assert events == []


def test_the_rendered_tests_send_nothing_to_the_sentry_of_a_person(
    backend: Path, server_url: str
) -> None:
    folder = "app/billing/workers/tests"
    names = ("main", "chancy_sentry", "chancy_jobs")
    with sentry() as (dsn, events):
        run(
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
            *("-p", "no:xdist", "-p", "no:copie", "-p", "no:asyncio"),
            *(f"{folder}/test_{name}.py" for name in names),
            cwd=backend,
            env=environment(WORKERS_TEST_DATABASE_URL=server_url, SENTRY_DSN=dsn),
        )

    assert events == []


@pytest.mark.parametrize("scope", ["backend", "service"])
def test_every_line_is_in_the_stream_once(
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


def test_the_level_comes_from_the_environment(backend: Path, database_url: str) -> None:
    migrate(backend, "app.billing", database_url)

    with service(
        backend,
        "app.billing.main:app",
        {"WORKERS_DATABASE_URL": database_url, "LOG_LEVEL": "warning"},
        wait=False,
    ) as running:
        wait_for(
            lambda: query(database_url, "SELECT 1 FROM billing_workers"),
            timeout=30,
            what="the worker's row",
        )
        running.process.terminate()
        running.process.wait(35)

    assert running.output == ""
