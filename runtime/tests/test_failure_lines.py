"""A failed job is one line in the log and one event in Sentry."""

import logging
import re
from typing import Any

import pytest
import sentry_sdk
from billing_service import fails, succeeds
from chancy_runtime import Chancy
from chancy_runtime.testing import RunJob

pytestmark = pytest.mark.anyio

LOGGER = "app.billing.workers.jobs"


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    return [
        (record.levelno, record.getMessage())
        for record in caplog.records
        if record.name == LOGGER
    ]


async def test_the_last_attempt_is_an_error_and_each_one_before_it_a_warning(
    run_job: RunJob, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        ended = await run_job(fails.job.with_max_attempts(2), timeout=60)

    about = f"the job billing_service.fails ({ended.id}) failed at attempt"
    (first, warning), last = lines(caplog)
    assert first == logging.WARNING and last == (logging.ERROR, f"{about} 2 of 2")
    time = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"
    again = re.escape(f"{about} 1 of 2 and runs again at ")
    assert re.fullmatch(again + time, warning)
    assert "this job always fails" in caplog.text
    assert "Traceback" in caplog.text


async def test_a_job_that_succeeds_leaves_no_line(
    run_job: RunJob, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        await run_job(succeeds.job.with_kwargs(text="hello"))

    assert lines(caplog) == []


async def test_sentry_has_each_failure_once(chancy: Chancy) -> None:
    events: list[Any] = []

    def keep(event: Any, hint: Any) -> None:
        events.append(event)

    with sentry_sdk.isolation_scope():
        # Without Sentry's deduplication: the log line itself must not become a second event.
        sentry_sdk.init(
            "http://key@127.0.0.1:9/1",
            before_send=keep,
            disabled_integrations=[sentry_sdk.integrations.dedupe.DedupeIntegration()],
        )
        try:
            at_once = {"retry_settings": {"backoff": 0, "backoff_jitter": [0, 0]}}
            reference = await chancy.push(
                fails.job.with_max_attempts(2).with_meta(at_once)
            )
            await chancy.wait_for_job(reference, timeout=60)
        finally:
            sentry_sdk.init(dsn="")

    assert len(events) == 2
