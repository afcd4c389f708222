"""Reports the runs of cron jobs to Sentry, so that Sentry notices missing runs."""

import hashlib
import re
from typing import Any

from chancy import QueuedJob
from sentry_sdk.crons import capture_checkin
from sentry_sdk.crons.consts import MonitorStatus

from chancy_runtime.plugins.base import OnOurWorker
from chancy_runtime.plugins.cron import SCHEDULE

# https://docs.sentry.io/platforms/python/crons/
_LONGEST_SLUG = 50
_DIGEST = 8
_STATUS = {
    QueuedJob.State.SUCCEEDED: MonitorStatus.OK,
    QueuedJob.State.FAILED: MonitorStatus.ERROR,
}


class SentryCheckIns(OnOurWorker):
    """Checks in with Sentry at the start and the end of each run of a cron job.

    Sentry creates a monitor for each schedule, named <service>-<job>, and reports runs that
    are missing, take too long or fail. All attempts of a run are one check-in; it fails if
    the last attempt fails. The service calls sentry_sdk.init(). Needs the extra `sentry` of
    chancy-runtime.

    Args:
        service: The beginning of the monitors' names.
        margin: Minutes by which a run may be late. Cron polls once in `poll_interval`, by
            default once a minute.
        max_runtime: Minutes that a run may take, including its retries.
    """

    def __init__(self, *, service: str, margin: int = 5, max_runtime: int = 30) -> None:
        super().__init__()
        self.service = service
        self.margin = margin
        self.max_runtime = max_runtime

    @staticmethod
    def get_identifier() -> str:
        return "chancy_runtime.sentry_check_ins"

    async def on_job_starting(self, *, job: QueuedJob, worker: Any) -> QueuedJob:
        self._check_in(job, MonitorStatus.IN_PROGRESS)
        return job

    async def on_job_completed(
        self,
        *,
        worker: Any,
        job: QueuedJob,
        exc: BaseException | None = None,
        result: Any | None = None,
    ) -> QueuedJob:
        was_cancelled = job.claim_id in worker.cancelled  # Then its row is failed.
        status = MonitorStatus.ERROR if was_cancelled else _STATUS.get(job.state)
        if status:
            self._check_in(job, status)
        return job

    def _check_in(self, job: QueuedJob, status: str) -> None:
        """Sends a check-in, in the background, if a schedule pushed the job."""
        match job.meta.get(SCHEDULE):
            case {"cron": str(cron), "timezone": str(timezone)}:
                capture_checkin(
                    monitor_slug=_slug(self.service, job.unique_key or job.func),
                    check_in_id=job.id.hex,
                    status=status,
                    monitor_config={
                        "schedule": {"type": "crontab", "value": cron},
                        "timezone": timezone,
                        "checkin_margin": self.margin,
                        "max_runtime": self.max_runtime,
                    },
                )


def _slug(service: str, unique_key: str) -> str:
    """Returns the name of a monitor, with characters and a length that Sentry accepts."""
    name = f"{service}-{unique_key.removeprefix('cron:')}"
    slug = re.sub("[^a-z0-9_-]+", "-", name.lower())
    if len(slug) <= _LONGEST_SLUG:
        return slug
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
    return f"{slug[: _LONGEST_SLUG - _DIGEST - 1]}-{digest}"
