"""The interface of a Worker for the feeder and the executors."""

import asyncio
import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import chancy
from chancy import Queue, QueuedJob
from chancy.executors.base import Executor
from chancy.hub import Hub
from psycopg import AsyncConnection

from chancy_runtime.jobs.registered import Registered
from chancy_runtime.settings import Settings
from chancy_runtime.supervision.monitor import Monitor
from chancy_runtime.supervision.supervisor import Retry


class Host(Protocol):
    """What a Worker offers to the layer that runs its jobs.

    Attributes:
        fetching_since: By queue, the time.monotonic() at which a claim was sent that has
            no answer yet.
        cancelled: The claims of jobs that were cancelled while they ran.
    """

    cancelled: set[UUID | None]
    fetching_since: dict[str, float]
    hub: Hub
    shutdown_event: asyncio.Event

    @property
    def queue_wake_events(self) -> Mapping[str, asyncio.Event]: ...

    @property
    def app(self) -> chancy.Chancy: ...

    @property
    def log(self) -> logging.Logger: ...

    @property
    def monitor(self) -> Monitor: ...

    @property
    def settings(self) -> Settings: ...

    @property
    def registered(self) -> Registered:
        """The functions and executors that rows may name."""
        ...

    @property
    def executors(self) -> dict[str, Executor]: ...

    @property
    def queues(self) -> Mapping[str, Queue]:
        """The queues that the Worker serves now, by name."""
        ...

    @property
    def gives_back(self) -> bool:
        """Whether the grace is over: running jobs go back to their queues."""
        ...

    def claims_are_in_doubt(self) -> None:
        """Remembers that the answer to a claim was lost."""

    def database_retry(self, name: str) -> Retry: ...

    async def fetch_jobs(
        self, queue: Queue, conn: AsyncConnection[Any], *, up_to: int = 1
    ) -> list[QueuedJob]: ...

    async def leave_to_later(self, job: QueuedJob) -> bool:
        """Leaves a job whose function this version does not have to a later deployment.

        Returns:
            Whether there is a later deployment; otherwise no process has the function.
        """
        ...

    async def on_job_completed(self, *, queue: Queue, job: QueuedJob) -> None: ...

    async def queue_update(self, update: QueuedJob) -> bool: ...

    def server_time(self) -> datetime:
        """Returns the time of the server's clock."""
        ...
