"""Reports failed jobs to Sentry with the name of their service."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sentry_sdk
from chancy import QueuedJob
from chancy.plugins import sentry
from sentry_sdk.integrations.logging import ignore_logger

from chancy_runtime.execution.executors import FAILURES
from chancy_runtime.plugins.base import OnOurWorker

# The variables in frames of these packages hold jobs, with all of their arguments.
_LIBRARIES = ("chancy", "chancy_runtime", "psycopg", "psycopg_pool")


class SentryPlugin(OnOurWorker, sentry.SentryPlugin):
    """Chancy's SentryPlugin, with the tag `service` on each event.

    The house rule: errors go to Sentry, regular logging to the normal stream. The service
    calls sentry_sdk.init(); without that nothing is sent. Needs the extra `sentry` of
    chancy-runtime.

    Args:
        service: The value of the tag.
    """

    def __init__(self, *, service: str) -> None:
        super().__init__()
        self.service = service

    async def on_worker_started(self, *, worker: Any) -> None:
        """Stops Sentry's logging integration from reporting failed jobs again."""
        await super().on_worker_started(worker=worker)
        ignore_logger(worker.chancy.log.getChild(FAILURES).name)

    @contextmanager
    def scope(self, **tags: str) -> Iterator[None]:
        """Tags the events of its block; each tag becomes chancy.<name>.

        The events have only the variables of the job's own functions.
        """
        with sentry_sdk.new_scope() as scope:
            scope.add_event_processor(_without_variables)
            scope.set_tag("service", self.service)
            scope.set_tags({f"chancy.{name}": value for name, value in tags.items()})
            yield

    async def on_job_completed(
        self,
        *,
        worker: Any,
        job: QueuedJob,
        exc: BaseException | None = None,
        result: Any | None = None,
    ) -> QueuedJob:
        if exc is None or job.claim_id in worker.cancelled:
            return job
        with self.scope():
            return await super().on_job_completed(
                worker=worker, job=job, exc=exc, result=result
            )


def _without_variables(event: Any, hint: Any) -> Any:
    for kind in ("exception", "threads"):
        for value in event.get(kind, {}).get("values", []):
            for frame in (value.get("stacktrace") or {}).get("frames", []):
                if str(frame.get("module")).partition(".")[0] in _LIBRARIES:
                    frame.pop("vars", None)
    return event
