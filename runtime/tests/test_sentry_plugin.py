"""A failing job is one event in Sentry."""

from typing import Any

import pytest
import sentry_sdk
from billing_service import fails
from chancy_runtime import Chancy

pytestmark = pytest.mark.anyio


async def test_a_failing_job_is_one_event_with_the_place_of_its_run(
    chancy: Chancy,
) -> None:
    events: list[Any] = []

    def keep(event: Any, hint: Any) -> None:
        events.append(event)

    with sentry_sdk.isolation_scope():
        sentry_sdk.init("http://key@127.0.0.1:9/1", before_send=keep)
        try:
            reference = await chancy.push(fails)
            await chancy.wait_for_job(reference, timeout=60)
        finally:
            sentry_sdk.init(dsn="")

    (event,) = events
    assert event["tags"]["service"] == "billing"
    assert event["tags"]["chancy.func"].endswith(".fails")
    assert event["tags"]["chancy.queue"] == "default"
    assert str(reference.identifier) in event["extra"]["chancy.job_id"]
