"""The reports of a running service, to Sentry over HTTP and to its log stream."""

from pathlib import Path

import pytest

from harness.commands import wait_for
from harness.databases import query
from harness.recorder import Recorder, recorder
from harness.sentry import sentry

FAILING_JOB = '''"""The record job."""

import sentry_sdk
from chancy_runtime import job


@job(queue="default")
async def record(*, note: str = "cron") -> None:
    """Always fails."""
    sentry_sdk.set_user({"id": "customer 7"})
    sentry_sdk.set_tag("order", "order 7")
    raise RuntimeError(f"no luck: {note}")
'''


@pytest.mark.parametrize("executor", ["Async", "Threaded", "Process"])
def test_a_failing_job_is_exactly_one_event_with_the_place_of_its_run(
    executor: str, tmp_path: Path, migrated_url: str
) -> None:
    is_async = executor == "Async"
    backend = recorder(
        tmp_path / "backend",
        job=FAILING_JOB if is_async else FAILING_JOB.replace("async ", ""),
        QUEUES=f'[Queue("default", executor=Chancy.Executor.{executor}, '
        "eager_polling=True)]",
    )

    with sentry() as (dsn, events):
        with backend.service(migrated_url, variables={"SENTRY_DSN": dsn}) as running:
            id = running.request("/jobs/record", "POST")["id"]
            wait_for(
                lambda: running.request(f"/jobs/{id}")["state"] == "failed",
                what="the failure of the job",
            )
            # sentry-sdk sends the remaining events before the process ends.
            running.stop()

    (event,) = events
    ((taken_by, errors),) = query(
        migrated_url, "SELECT taken_by, errors FROM billing_jobs"
    )
    assert event["tags"] == event["tags"] | {
        "service": "billing",
        "chancy.func": "app.billing.workers.record.worker.record",
        "chancy.queue": "default",
        "chancy.worker": taken_by,
    }
    assert id in event["extra"]["chancy.job_id"]
    if executor != "Process":  # Its child has a Sentry of its own, or none.
        assert event["tags"]["order"] == "order 7"
        assert event["user"]["id"] == "customer 7"
    (exception, *_) = event["exception"]["values"][-1:]
    assert (exception["type"], exception["value"]) == (
        "RuntimeError",
        "no luck: request",
    )
    assert "no luck: request" in errors[0]["traceback"]


def test_every_line_is_in_the_stream_once_and_nothing_is_sent_without_a_dsn(
    backend: Recorder, migrated_url: str
) -> None:
    with sentry() as (_dsn, events), backend.service(migrated_url) as running:
        running.run_job("record")
        running.stop()

    assert events == []
    lines = running.output.splitlines()
    for text in (
        "Started plugin 'Cron'",
        "Started listening for notifications.",
        "Application startup complete",
        '"POST /jobs/record HTTP/1.1" 202',
    ):
        assert len([line for line in lines if text in line]) == 1, running.output
    assert all("INFO" in line for line in lines), running.output
