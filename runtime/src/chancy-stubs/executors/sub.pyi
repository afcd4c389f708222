from concurrent.futures import Future
from typing import Any

from chancy.executors.base import ConcurrentExecutor
from chancy.job import QueuedJob

class SubInterpreterExecutor(ConcurrentExecutor):
    @staticmethod
    def on_initialize_worker(parent_sys_path: list[str]) -> None: ...
    async def push(self, job: QueuedJob) -> Future[tuple[QueuedJob, Any]]: ...
    def get_default_concurrency(self) -> int: ...
