"""Pushed jobs run, failing ones are kept with their error."""

import pytest
from chancy import Chancy, QueuedJob, job

pytestmark = pytest.mark.anyio


@job()
async def succeeds(*, text: str) -> None:
    assert text == "hello"


@job()
async def fails() -> None:
    raise RuntimeError("this job always fails")


async def test_a_pushed_job_runs(chancy: Chancy) -> None:
    reference = await chancy.push(succeeds.job.with_kwargs(text="hello"))

    done = await chancy.wait_for_job(reference, timeout=30)

    assert done is not None
    assert (done.state, done.attempts) == (QueuedJob.State.SUCCEEDED, 1)


async def test_a_failing_job_ends_failed_with_its_traceback(chancy: Chancy) -> None:
    reference = await chancy.push(fails)

    done = await chancy.wait_for_job(reference, timeout=30)

    assert done is not None
    assert (done.state, done.attempts) == (QueuedJob.State.FAILED, 1)
    assert "this job always fails" in done.errors[0]["traceback"]
