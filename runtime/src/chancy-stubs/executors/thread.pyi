from concurrent.futures import Executor as Pool
from concurrent.futures import Future
from typing import Any

from chancy.executors.base import ConcurrentExecutor
from chancy.job import QueuedJob

class ThreadedExecutor(ConcurrentExecutor):
    pool: Pool
    async def push(self, job: QueuedJob) -> Future[tuple[QueuedJob, Any]]: ...
    def get_default_concurrency(self) -> int: ...
