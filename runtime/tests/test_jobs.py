"""Pushed jobs run, failing ones are kept with their error."""

import pytest
from billing_service import fails, succeeds
from chancy_runtime import QueuedJob
from chancy_runtime.testing import RunJob

pytestmark = pytest.mark.anyio


async def test_a_pushed_job_runs(run_job: RunJob) -> None:
    done = await run_job(succeeds.job.with_kwargs(text="hello"))

    assert (done.state, done.attempts) == (QueuedJob.State.SUCCEEDED, 1)


async def test_a_failing_job_ends_failed_with_its_traceback(run_job: RunJob) -> None:
    done = await run_job(fails)

    assert (done.state, done.attempts) == (QueuedJob.State.FAILED, 1)
    assert "this job always fails" in done.errors[0]["traceback"]
