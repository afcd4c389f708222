"""Keeps the cron table equal to the list in chancy_initialization.py."""

from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from chancy import Chancy, Job
from chancy.job import IsAJob
from chancy.plugins import cron

from .chancy_deployment import deployment
from .chancy_errors import WorkersError

_OWNER = {"scheduled_by": "chancy_initialization"}


class Cron(cron.Cron):
    """Chancy's Cron, which looks as often as the setting `poll_interval` says."""

    async def run(self, worker: Any, chancy: Any) -> None:
        self.poll_interval = chancy.settings.poll_interval
        await super().run(worker, chancy)


@dataclass(frozen=True, kw_only=True)
class CronJob:
    """A job that runs by the clock.

    Args:
        job: The job's function, decorated with @job.
        cron: Five fields: minute, hour, day, month, weekday (names, or 0 for Sunday).
        timezone: The IANA time zone that the cron expression is read in.
        name: Tells two schedules of one job apart.
    """

    job: IsAJob[..., Any]
    cron: str
    timezone: str = "UTC"
    name: str = ""

    @property
    def unique_key(self) -> str:
        """Names the schedule; Cron pushes no second job while one with it is due."""
        return f"cron:{self.name or self.job.job.func.rpartition('.')[2]}"

    def to_push(self) -> Job:
        """The job that Cron pushes at each run."""
        return self.job.job.with_unique_key(self.unique_key).with_meta(_OWNER)


async def schedule_cron_jobs(chancy: Chancy, cron_jobs: list[CronJob]) -> None:
    """Writes the schedules that are new or changed and removes those that are gone.

    An unchanged one is left alone: Cron.schedule would set its next run anew and drop
    the one that came due while the service was down. Schedules that other code
    created stay as they are.

    Raises:
        WorkersError: Two schedules share a name, or one of them can never run.
    """
    wanted = {cron_job.unique_key: cron_job for cron_job in cron_jobs}
    for cron_job in cron_jobs:
        if wanted[cron_job.unique_key] is not cron_job:
            raise WorkersError(
                f"two cron jobs are {cron_job.unique_key}: give one of them a name="
            )
    async with deployment(chancy) as cursor:
        if cursor is None:
            return
        found = await Cron.get_schedules(chancy)
        for key in sorted(wanted):
            if key not in found or _differs(wanted[key], found[key]):
                await _schedule(chancy, wanted[key])
        gone = [
            key
            for key, row in found.items()
            if key not in wanted and row["job"].meta == _OWNER
        ]
        if gone:
            await Cron.unschedule(chancy, *sorted(gone))


async def _schedule(chancy: Chancy, cron_job: CronJob) -> None:
    try:
        zone = ZoneInfo(cron_job.timezone)
        await Cron.schedule(chancy, cron_job.cron, cron_job.to_push(), timezone=zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise WorkersError(
            f"{cron_job.unique_key} cannot be scheduled at {cron_job.cron!r} in the time "
            f"zone {cron_job.timezone!r} ({error}): correct it in {__package__}"
            ".chancy_initialization"
        ) from error


def _differs(cron_job: CronJob, row: dict[str, Any]) -> bool:
    wanted, found = cron_job.to_push().pack(), row["job"].pack()
    # "s" is when the job was created.
    return (cron_job.cron, cron_job.timezone, {**wanted, "s": 0}) != (
        row["cron"],
        row["timezone"],
        {**found, "s": 0},
    )
