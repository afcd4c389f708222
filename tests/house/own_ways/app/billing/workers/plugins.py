"""A plugin of the team's."""

from typing import Any

from chancy import QueuedJob
from chancy.plugin import Plugin


class Audit(Plugin):
    """Writes down which jobs are done."""

    def __init__(self, *, label: str) -> None:
        super().__init__()
        self.label = label

    @staticmethod
    def get_identifier() -> str:
        return "billing.audit"

    async def on_job_completed(
        self, *, worker: Any, job: QueuedJob, exc: Exception | None = None, result: Any = None
    ) -> QueuedJob:
        print(f"audited by {self.label}: {job.func}", flush=True)
        return job
