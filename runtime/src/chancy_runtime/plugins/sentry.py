"""Reports failed jobs to Sentry with the name of their service."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sentry_sdk
from chancy import QueuedJob, Worker
from chancy.plugins import sentry


class SentryPlugin(sentry.SentryPlugin):
    """Chancy's SentryPlugin, with the tag `service` on each event.

    sentry_sdk.init() stays with the service; without it nothing is sent.
    """

    def __init__(self, *, service: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Chancy has no py.typed
        self.service = service

    @contextmanager
    def scope(self, **tags: str) -> Iterator[None]:
        """Tags what is reported inside of it; tags become chancy.<name>."""
        with sentry_sdk.new_scope() as scope:
            scope.set_tag("service", self.service)
            scope.set_tags({f"chancy.{name}": value for name, value in tags.items()})
            yield

    async def on_job_completed(
        self,
        *,
        worker: Worker,
        job: QueuedJob,
        exc: Exception | None = None,
        result: Any | None = None,
    ) -> QueuedJob:
        if exc is None:
            return job
        with self.scope():
            return await super().on_job_completed(
                worker=worker, job=job, exc=exc, result=result
            )
