"""The schedules of the service."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from chancy_runtime import (
    Chancy,
    Cron,
    CronJob,
    WorkersError,
    job,
    schedule_cron_jobs,
)
from croniter import croniter  # type: ignore[import-untyped,unused-ignore]

pytestmark = pytest.mark.anyio


@job()
async def tick() -> None: ...


CRON_JOBS = [
    CronJob(job=tick, cron="0 7 * * mon-fri", name="weekdays"),
    CronJob(job=tick, cron="30 2 1 * *", timezone="Europe/London", name="monthly"),
]


async def test_each_cron_job_has_the_next_run_of_its_schedule(
    chancy: Chancy,
) -> None:
    await schedule_cron_jobs(chancy, CRON_JOBS)

    schedules = await Cron.get_schedules(chancy)

    assert schedules.keys() == {cron_job.unique_key for cron_job in CRON_JOBS}
    now = datetime.now(tz=UTC)
    for cron_job in CRON_JOBS:
        local = now.astimezone(ZoneInfo(cron_job.timezone))
        expected = {
            croniter(cron_job.cron, start).get_next(datetime)
            for start in (local, local - timedelta(minutes=1))
        }
        assert schedules[cron_job.unique_key]["next_run"] in expected


async def test_a_restart_keeps_a_run_that_came_due_before_it(chancy: Chancy) -> None:
    cron_jobs = [*CRON_JOBS, CronJob(job=tick, cron="0 0 1 1 *")]
    await schedule_cron_jobs(chancy, cron_jobs)
    due = datetime(2020, 1, 1, tzinfo=UTC)
    async with chancy.pool.connection() as connection:
        await connection.execute(
            f'UPDATE "{chancy.prefix}cron" SET next_run = %s', [due]
        )

    await schedule_cron_jobs(chancy, cron_jobs)

    assert (await Cron.get_schedules(chancy))["cron:tick"]["next_run"] == due


async def test_changed_schedules_take_effect_and_removed_ones_are_gone(
    chancy: Chancy,
) -> None:
    await Cron.schedule(chancy, "0 0 1 1 *", tick.job.with_unique_key("of other code"))
    await schedule_cron_jobs(chancy, [CronJob(job=tick, cron="0 0 1 1 *")])

    await schedule_cron_jobs(chancy, [CronJob(job=tick, cron="0 0 2 2 *")])
    assert (await Cron.get_schedules(chancy))["cron:tick"]["cron"] == "0 0 2 2 *"

    await schedule_cron_jobs(chancy, [])
    assert (await Cron.get_schedules(chancy)).keys() == {"of other code"}


async def test_a_job_that_is_passed_as_a_job_keeps_its_unique_key(
    chancy: Chancy,
) -> None:
    given = tick.job.with_unique_key("nightly").with_priority(5)
    cron_job = CronJob(job=given, cron="0 0 1 1 *")

    await schedule_cron_jobs(chancy, [*CRON_JOBS, cron_job])

    job = (await Cron.get_schedules(chancy))["nightly"]["job"]
    assert (job.unique_key, job.priority) == ("nightly", 5)
    assert CronJob(job=tick.job, cron="* * * * *").unique_key == "cron:tick"
    assert CronJob(job=given, cron="* * * * *", name="a").unique_key == "cron:a"


@pytest.mark.parametrize(
    ("cron", "timezone"),
    [
        ("0 0 31 2 *", "UTC"),
        ("0 0 * * *", "Europe/Atlantis"),
        # Noon in other programs, but the 12th of the month in croniter.
        ("0 0 12 * * *", "UTC"),
        ("*/30 * * * * *", "UTC"),
        ("0 0 * *", "UTC"),
    ],
)
async def test_an_impossible_schedule_is_named(
    chancy: Chancy, cron: str, timezone: str
) -> None:
    before = await Cron.get_schedules(chancy)

    with pytest.raises(WorkersError, match="cron:tick"):
        await schedule_cron_jobs(
            chancy, [CronJob(job=tick, cron=cron, timezone=timezone)]
        )

    assert await Cron.get_schedules(chancy) == before
