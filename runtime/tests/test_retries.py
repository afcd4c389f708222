"""A failed job waits for its next attempt, longer each time, on the server's clock."""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import billing_service
import pytest
from billing_service import fails
from chancy.plugins import retry
from chancy.plugins.retry import RetryPlugin
from chancy_runtime import Chancy, Queue, QueuedJob, Settings, job
from chancy_runtime.jobs.retries import seconds_until_retry
from chancy_runtime.postgres.claim_indexes import FROM_A_LATER_TIME, FROM_THE_PUSH
from chancy_runtime.testing import RunJob, Service
from hypothesis import given
from hypothesis import strategies as st
from psycopg import AsyncConnection

from harness.databases import query
from harness.starts import until_locked

LOG = logging.getLogger("test")
STARTS: list[float] = []


def failed(attempts: int, retry_settings: object = None) -> QueuedJob:
    """A job after a number of failed attempts."""
    return QueuedJob(
        id=uuid4(),
        func="a.b",
        attempts=attempts,
        max_attempts=attempts + 1,
        created_at=datetime.now(tz=UTC),
        meta={} if retry_settings is None else {"retry_settings": retry_settings},
    )


@pytest.mark.parametrize(
    ("attempts", "own", "least", "most"),
    [
        (1, None, 15, 18.75),
        (2, None, 30, 37.5),
        (5, None, 240, 300),
        (6, None, 300, 375),
        (5000, None, 300, 375),
        (3, {}, 60, 75),
        (3, {"backoff": 2, "backoff_jitter": [0, 0]}, 8, 8),
        (3, {"backoff_factor": 10, "backoff_limit": 90}, 90, 112.5),
        (2, {"backoff": 0, "backoff_jitter": [0, 0]}, 0, 0),
        (9, {"backoff_factor": 10**400}, 300, 375),
        (2**31 - 1, {"backoff_factor": 3}, 300, 375),
    ],
)
def test_the_wait_doubles_up_to_a_bound(
    attempts: int,
    own: object,
    least: float,
    most: float,
    caplog: pytest.LogCaptureFixture,
) -> None:
    waits = {
        seconds_until_retry(failed(attempts, own), Settings(), LOG) for _ in range(50)
    }

    assert least <= min(waits) and max(waits) <= most
    assert len(waits) > 1 or least == most
    assert caplog.messages == []


def test_the_settings_are_the_first_wait_and_the_longest() -> None:
    settings = Settings(retry_wait=2, retry_limit=3)
    first, second = (
        seconds_until_retry(failed(attempts), settings, LOG) for attempts in (1, 2)
    )

    assert 2 <= first <= 2.5 and 3 <= second <= 3.75
    assert seconds_until_retry(failed(9), Settings(retry_wait=0), LOG) == 0


@pytest.mark.parametrize(
    "own",
    [
        "soon",
        [1, 2],
        {"backoff": "soon"},
        {"backoff": None},
        {"backoff": float("nan")},
        {"backoff": -100},
        {"backoff": 1e300, "backoff_limit": 1e300},
        {"backoff_limit": 10**400},
        {"backoff_jitter": 3},
        {"backoff_jitter": [1, 2, 3]},
        {"backoff_jitter": [0, "x"]},
        {"backoff_factor": -2},
    ],
)
def test_retry_settings_that_cannot_be_used_are_named_and_the_default_holds(
    own: object, caplog: pytest.LogCaptureFixture
) -> None:
    wait = seconds_until_retry(failed(2, own), Settings(), LOG)

    assert 30 <= wait <= 37.5
    (line,) = caplog.messages
    assert line.startswith("the retry_settings of the job a.b (")


@given(
    own=st.fixed_dictionaries(
        {
            "backoff": st.integers(0, 60),
            "backoff_factor": st.floats(1, 4),
            "backoff_limit": st.integers(0, 3600),
            "backoff_jitter": st.tuples(st.integers(0, 5), st.integers(5, 9)),
        }
    ),
    attempts=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_retry_settings_of_a_job_have_the_meaning_of_chancy_s_plugin(
    own: dict[str, Any], attempts: int, seed: int
) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime(2026, 1, 1, tzinfo=UTC)

    job = failed(attempts, own)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retry, "datetime", Clock)
        random.seed(seed)
        theirs = RetryPlugin.calculate_next_run(job, own) - Clock.now()
    random.seed(seed)
    ours = seconds_until_retry(job, Settings(), LOG)

    assert ours == pytest.approx(theirs.total_seconds(), abs=1e-5)


@pytest.fixture
async def chancy(
    tables: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Chancy]:
    """The service; its queue polls once a second for due jobs."""
    queue = Queue(
        "default",
        executor=Chancy.Executor.Async,
        polling_interval=1,
        eager_polling=True,
    )
    monkeypatch.setattr(billing_service, "QUEUES", [queue])
    async with service.running() as running:
        yield running


async def until_it_waits(url: str) -> None:
    async with asyncio.timeout(60):
        while query(url, "SELECT state FROM billing_jobs") != [("retrying",)]:
            await asyncio.sleep(0.02)


@pytest.mark.anyio
async def test_a_failed_job_is_scheduled_for_later_and_not_taken_before(
    chancy: Chancy, tables: str
) -> None:
    reference = await chancy.push(fails.job.with_max_attempts(2))
    await until_it_waits(tables)

    ((attempts, wait, later, now, completed),) = query(
        tables,
        "SELECT attempts, extract(epoch FROM scheduled_at - NOW())::float, "
        f"{FROM_A_LATER_TIME}, {FROM_THE_PUSH}, completed_at FROM billing_jobs",
    )
    assert (attempts, later, now, completed) == (1, True, False, None)
    assert wait <= 18.75
    # Without its scheduled time, it would have been taken by now.
    query(tables, "UPDATE billing_jobs SET scheduled_at = NOW() + INTERVAL '1 hour'")
    await chancy.wait_for_job(
        await chancy.push(billing_service.succeeds.job.with_kwargs(text="hello")),
        timeout=60,
    )
    waiting = await chancy.get_job(reference)
    assert waiting and waiting.state == QueuedJob.State.RETRYING
    query(
        tables,
        "UPDATE billing_jobs SET scheduled_at = created_at + INTERVAL '1 microsecond' "
        "WHERE state = 'retrying'",
    )
    ended = await chancy.wait_for_job(reference, timeout=60)
    assert ended and (ended.state, ended.attempts) == (QueuedJob.State.FAILED, 2)


@job(
    max_attempts=3,
    meta={"retry_settings": {"backoff": 0.5, "backoff_jitter": [0, 0]}},
)
async def fails_and_notes_it() -> None:
    STARTS.append(time.monotonic())
    raise RuntimeError("this job always fails")


@pytest.mark.anyio
async def test_the_attempts_of_a_job_have_its_own_waits(
    chancy: Chancy,
) -> None:
    STARTS.clear()
    ended = await chancy.wait_for_job(await chancy.push(fails_and_notes_it), timeout=60)

    assert ended and (ended.state, ended.attempts) == (QueuedJob.State.FAILED, 3)
    first, second, third = STARTS
    assert second - first >= 0.5 and third - second >= 1


@pytest.mark.anyio
async def test_what_a_claim_waited_for_does_not_count_as_the_wait_of_a_retry(
    chancy: Chancy, tables: str
) -> None:
    async with await AsyncConnection.connect(tables) as other:
        await other.execute("LOCK TABLE billing_jobs IN SHARE ROW EXCLUSIVE MODE")
        await other.execute(
            "INSERT INTO billing_jobs (id, queue, func, max_attempts, meta) "
            "VALUES (gen_random_uuid(), 'default', 'billing_service.fails', 2, "
            '\'{"retry_settings": {"backoff": 60, "backoff_jitter": [0, 0]}}\')'
        )
        await until_locked(other)
        cursor = await other.execute("SELECT clock_timestamp()")
        released = await cursor.fetchone()
        assert released
    await until_it_waits(tables)

    assert query(
        tables,
        "SELECT started_at > %s, scheduled_at > started_at + INTERVAL '1 minute' "
        "FROM billing_jobs",
        released[0],
    ) == [(True, True)]


@pytest.mark.anyio
async def test_in_a_test_of_the_service_attempts_follow_at_once(
    run_job: RunJob,
) -> None:
    STARTS.clear()
    patient = fails_and_notes_it.job.with_meta({"retry_settings": {"backoff": 3600}})
    ended = await run_job(patient, timeout=60)

    assert (ended.state, len(STARTS)) == (QueuedJob.State.FAILED, 3)


class SoonPlugin(RetryPlugin):
    """A RetryPlugin of a team, with a fixed time."""

    @staticmethod
    def calculate_next_run(job: QueuedJob, retry_settings: dict[str, Any]) -> datetime:
        return datetime(2100, 1, 1, tzinfo=UTC)


@pytest.mark.anyio
async def test_a_plugin_s_time_comes_before_the_library_s(
    chancy: Chancy, tables: str
) -> None:
    chancy.plugins["chancy.retry_plugin"] = SoonPlugin()
    await chancy.push(fails.job.with_max_attempts(2))
    await until_it_waits(tables)

    assert query(
        tables, "SELECT extract(year FROM scheduled_at)::int FROM billing_jobs"
    ) == [(2100,)]
