import asyncio
import concurrent.futures
from collections.abc import MutableMapping
from multiprocessing.context import BaseContext
from multiprocessing.managers import DictProxy, SyncManager
from types import FrameType
from typing import Any
from uuid import UUID

from chancy.executors.base import ConcurrentExecutor
from chancy.job import QueuedJob
from chancy.queue import Queue
from chancy.worker import Worker

class ProcessExecutor(ConcurrentExecutor):
    manager: SyncManager
    pids_for_job: DictProxy[UUID, int]
    pending_cancellations: DictProxy[UUID, bool]
    timeouts: dict[UUID, asyncio.Task[None]]
    def __init__(
        self,
        worker: Worker,
        queue: Queue,
        *,
        maximum_jobs_per_worker: int | None = 100,
        mp_context: BaseContext | None = None,
    ) -> None: ...
    @classmethod
    def on_initialize_worker(cls) -> None: ...
    async def push(
        self, job: QueuedJob
    ) -> concurrent.futures.Future[tuple[QueuedJob, Any]]: ...
    @classmethod
    def job_wrapper(  # type: ignore[override]
        cls,
        job: QueuedJob,
        pids_for_job: MutableMapping[UUID, int],
        pending_cancellations: MutableMapping[UUID, bool],
    ) -> tuple[QueuedJob, Any]: ...
    @classmethod
    def job_signal_handler(cls, signum: int, frame: FrameType | None) -> None: ...
    def get_default_concurrency(self) -> int: ...
    # Private, and used by chancy_runtime:
    _maximum_jobs_per_worker: int
    async def _handle_timeout(self, execution_id: UUID, time_limit: int) -> None: ...
    def _create_pool(self) -> concurrent.futures.Executor: ...
