"""Keeps the cron table equal to the service's list of cron jobs, and pushes due runs."""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import chancy
from chancy import Job
from chancy.job import IsAJob
from chancy.plugins import cron
from psycopg import AsyncCursor, sql
from psycopg.rows import DictRow, dict_row

from chancy_runtime.app import Chancy
from chancy_runtime.compat import next_run
from chancy_runtime.errors import WorkersError
from chancy_runtime.execution.observers import with_meta
from chancy_runtime.modes import Mode
from chancy_runtime.plugins.base import OnOurWorker
from chancy_runtime.queues.deployment import server_time

_OWNER = {"scheduled_by": "chancy_initialization"}
# The key in a job's meta for the schedule by which Cron pushed it.
SCHEDULE = "chancy_runtime.schedule"
# An unknown time zone raises a KeyError, a folder of time zones an OSError.
_UNUSABLE = (KeyError, TypeError, ValueError, OSError)


class Cron(OnOurWorker, cron.Cron):
    """Chancy's Cron, but it uses the server's clock and also polls at the start.

    Chancy 0.26 polls first after a minute, uses the worker's clock, pushes in an order that
    can deadlock with the saving of results, and ends at a row whose job cannot be read.

    Args:
        poll_interval: Seconds between two polls. Default: the setting `poll_interval`.
    """

    def __init__(self, *, poll_interval: int | None = None) -> None:
        super().__init__(poll_interval=poll_interval or 0)

    async def run(self, worker: Any, chancy: Any) -> None:
        self.poll_interval = self.poll_interval or chancy.settings.poll_interval
        self.wakeup_signal.set()
        logged: dict[str, str] = {}
        while await self.sleep(self.poll_interval):
            async with (
                chancy.pool.connection() as connection,
                connection.cursor(row_factory=dict_row) as cursor,
            ):
                for key, reason in (await _push_due(chancy, cursor)).items():
                    if logged.get(key) != reason:
                        logged[key] = reason
                        chancy.log.error(
                            "the schedule %s cannot run (%s): correct it where it is "
                            "defined",
                            *(key, reason),
                        )


async def _push_due(app: chancy.Chancy, cursor: AsyncCursor[DictRow]) -> dict[str, str]:
    """Pushes the due jobs; returns the schedules that cannot run, with the reasons."""
    await cursor.execute(
        sql.SQL(
            "SELECT *, NOW() AS now FROM {} WHERE next_run <= NOW() "
            "FOR UPDATE SKIP LOCKED"
        ).format(_table(app))
    )
    due: list[Job | IsAJob[..., Any]] = []
    unusable: dict[str, str] = {}
    for row in await cursor.fetchall():
        try:
            upcoming = next_run(row["cron"], row["now"], ZoneInfo(row["timezone"]))
            job = Job.unpack(row["job"]).with_scheduled_at(row["now"])
            schedule = {"cron": row["cron"], "timezone": row["timezone"]}
            due.append(with_meta(job, SCHEDULE, schedule))
        except _UNUSABLE as error:
            unusable[row["unique_key"]] = f"{type(error).__name__}: {error}"
            continue
        await cursor.execute(
            sql.SQL(
                "UPDATE {} SET next_run = %s, last_run = NOW() WHERE unique_key = %s"
            ).format(_table(app)),
            [upcoming, row["unique_key"]],
        )
    await app.push_many_ex(cursor, due)
    return unusable


@dataclass(frozen=True, kw_only=True)
class CronJob:
    """A job that runs on a schedule.

    A run that comes due while the previous one still waits or runs is merged with it;
    runs that came due while no process was running are merged into one.

    Args:
        job: The job's function, decorated with @job, or the result of its `job.with_…()`
            methods. If it has a unique key, the schedule has the same key.
        cron: Five fields: minute, hour, day, month, weekday (names, or 0 for Sunday).
        timezone: The IANA time zone of the cron expression.
        name: A name for the schedule, needed if one job has two schedules.
    """

    job: IsAJob[..., Any] | Job
    cron: str
    timezone: str = "UTC"
    name: str = ""

    @property
    def unique_key(self) -> str:
        """The key of the schedule and its jobs; Cron pushes no second job beside a due one."""
        if isinstance(self.job, Job) and self.job.unique_key and not self.name:
            return self.job.unique_key
        return f"cron:{self.name or self._job.func.rpartition('.')[2]}"

    @property
    def _job(self) -> Job:
        return self.job if isinstance(self.job, Job) else self.job.job

    def to_push(self) -> Job:
        """Returns the job that Cron pushes at each run."""
        job = self._job
        return job.with_unique_key(self.unique_key).with_meta({**job.meta, **_OWNER})


async def schedule_cron_jobs(app: Chancy, cron_jobs: list[CronJob]) -> None:
    """Writes new and changed schedules, and removes those that are no longer in the list.

    A run that came due while the service was down stays due (Cron.schedule would skip it).
    Schedules that other code created stay as they are. A process that only pushes writes
    nothing.

    Raises:
        WorkersError: Two schedules share a name, or one of them can never run.
    """
    if app.mode is not Mode.RUN:
        return
    wanted = {cron_job.unique_key: cron_job for cron_job in cron_jobs}
    for cron_job in cron_jobs:
        if wanted[cron_job.unique_key] is not cron_job:
            raise WorkersError(
                f"two cron jobs have the key {cron_job.unique_key}: give one of them a name="
            )
    async with app.step_of_start(), app.deployment.owning() as cursor:
        if cursor is None:
            return
        now = await server_time(cursor)
        await cursor.execute(
            sql.SQL("SELECT * FROM {} ORDER BY unique_key FOR UPDATE").format(
                _table(app)
            )
        )
        found = {row["unique_key"]: row for row in await cursor.fetchall()}
        for key in sorted(wanted):
            await _schedule(app, cursor, wanted[key], found.get(key), now)
        gone = [
            key
            for key, row in found.items()
            if key not in wanted and _OWNER.items() <= row["job"].get("m", {}).items()
        ]
        await cursor.execute(
            sql.SQL("DELETE FROM {} WHERE unique_key = ANY(%s)").format(_table(app)),
            [gone],
        )


def _check_fields(cron: str) -> None:
    """Makes sure that a cron expression has the same meaning as in other programs.

    croniter reads the sixth field as seconds; in other programs these are the first field.

    Raises:
        ValueError: The expression does not have five fields.
    """
    if not cron.startswith("@") and len(cron.split()) != 5:
        raise ValueError("write five fields: minute, hour, day, month, weekday")


async def _schedule(
    app: Chancy,
    cursor: AsyncCursor[DictRow],
    cron_job: CronJob,
    found: DictRow | None,
    now: datetime,
) -> None:
    try:
        _check_fields(cron_job.cron)
        upcoming = next_run(cron_job.cron, now, ZoneInfo(cron_job.timezone))
    except _UNUSABLE as error:
        raise WorkersError(
            f"{cron_job.unique_key} cannot be scheduled at {cron_job.cron!r} in the time "
            f"zone {cron_job.timezone!r} ({error}): correct it in {app.package}"
        ) from error
    job = json.loads(json.dumps(cron_job.to_push().pack()))
    when = (cron_job.cron, cron_job.timezone)
    if found:
        unchanged = when == (found["cron"], found["timezone"])
        # "s" is the time at which the job was created.
        if unchanged and {**job, "s": 0} == {**found["job"], "s": 0}:
            return
        if unchanged or found["next_run"] <= now:
            upcoming = found["next_run"]
    await cursor.execute(
        sql.SQL(
            "INSERT INTO {} (unique_key, cron, timezone, job, next_run) "
            "VALUES (%s, %s, %s, %s, %s) ON CONFLICT (unique_key) DO UPDATE SET "
            "cron = EXCLUDED.cron, timezone = EXCLUDED.timezone, job = EXCLUDED.job, "
            "next_run = EXCLUDED.next_run"
        ).format(_table(app)),
        [cron_job.unique_key, *when, json.dumps(job), upcoming],
    )


def _table(app: chancy.Chancy) -> sql.Identifier:
    return sql.Identifier(f"{app.prefix}cron")
