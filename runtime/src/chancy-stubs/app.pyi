import datetime
import enum
import logging
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from functools import cached_property
from types import TracebackType
from typing import Any, Literal, Self

from chancy.job import IsAJob, Job, QueuedJob, Reference
from chancy.plugin import Plugin
from chancy.queue import Queue
from chancy.utils import DatabaseConnection
from psycopg import AsyncCursor, Cursor
from psycopg.rows import DictRow
from psycopg_pool import AsyncConnectionPool, ConnectionPool

def setup_default_logger(level: int = ...) -> logging.Logger: ...

class Chancy:
    class Executor(enum.StrEnum):
        Process = "chancy.executors.process.ProcessExecutor"
        Threaded = "chancy.executors.thread.ThreadedExecutor"
        Async = "chancy.executors.asyncex.AsyncExecutor"
        SubInterpreter = "chancy.executors.sub.SubInterpreterExecutor"

    dsn: str
    plugins: dict[str, Plugin]
    prefix: str
    min_connection_pool_size: int
    max_connection_pool_size: int
    poll_reconnect_timeout: int
    notifications: bool
    log: logging.Logger
    def __init__(
        self,
        dsn: str | DatabaseConnection,
        *,
        plugins: list[Plugin] | None = None,
        prefix: str = "chancy_",
        min_connection_pool_size: int = 1,
        max_connection_pool_size: int = 10,
        poll_reconnect_timeout: int = 300,
        notifications: bool = True,
        log: logging.Logger | None = None,
        no_default_plugins: bool = False,
    ) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None: ...
    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> Literal[False]: ...
    # Any: a subclass may have connections of a class of its own.
    @cached_property
    def pool(self) -> AsyncConnectionPool[Any]: ...
    @cached_property
    def sync_pool(self) -> ConnectionPool[Any]: ...
    async def migrate(self, *, to_version: int | None = None) -> None: ...
    async def is_up_to_date(self) -> bool: ...
    async def declare(self, queue: Queue, *, upsert: bool = False) -> Queue: ...
    def sync_declare(self, queue: Queue, *, upsert: bool = False) -> Queue: ...
    async def declare_ex(
        self, cursor: AsyncCursor[DictRow], queue: Queue, *, upsert: bool = False
    ) -> Queue: ...
    def sync_declare_ex(
        self, cursor: Cursor[DictRow], queue: Queue, *, upsert: bool = False
    ) -> Queue: ...
    async def push(self, job: Job | IsAJob[..., Any]) -> Reference: ...
    async def push_ex(
        self, cursor: AsyncCursor[DictRow], job: Job | IsAJob[..., Any]
    ) -> Reference: ...
    def push_many(
        self, jobs: Iterable[Job | IsAJob[..., Any]], *, batch_size: int = 1000
    ) -> AsyncGenerator[list[Reference]]: ...
    async def push_many_ex(
        self, cursor: AsyncCursor[DictRow], jobs: Sequence[Job | IsAJob[..., Any]]
    ) -> list[Reference]: ...
    # Chancy 0.26 reads `queue` of what is pushed here: a decorated function has none.
    def sync_push(self, job: Job) -> Reference: ...
    def sync_push_many(
        self, jobs: Iterable[Job], *, batch_size: int = 1000
    ) -> Iterator[list[Reference]]: ...
    def sync_push_many_ex(
        self, cursor: Cursor[DictRow], jobs: Sequence[Job]
    ) -> list[Reference]: ...
    async def get_job(self, ref: Reference) -> QueuedJob | None: ...
    async def get_jobs(self, refs: list[Reference]) -> list[QueuedJob]: ...
    def sync_get_job(self, ref: Reference) -> QueuedJob | None: ...
    async def wait_for_job(
        self,
        ref: Reference,
        *,
        interval: int = 1,
        timeout: float | None = None,
        states: set[QueuedJob.State] | None = None,
    ) -> QueuedJob | None: ...
    async def wait_for_jobs(
        self,
        refs: list[Reference],
        *,
        interval: int = 1,
        timeout: float | None = None,
        states: set[QueuedJob.State] | None = None,
    ) -> list[QueuedJob]: ...
    async def get_all_queues(self) -> list[Queue]: ...
    async def get_queue(self, name: str) -> Queue: ...
    async def delete_queue(self, name: str, *, purge_jobs: bool = True) -> None: ...
    async def pause_queue(
        self,
        name: str,
        *,
        resume_at: datetime.datetime | datetime.timedelta | None = None,
    ) -> None: ...
    async def resume_queue(self, name: str) -> None: ...
    async def delete_queue_ex(
        self, cursor: AsyncCursor[DictRow], name: str, *, purge_jobs: bool = True
    ) -> int: ...
    async def pause_queue_ex(
        self,
        cursor: AsyncCursor[DictRow],
        name: str,
        *,
        resume_at: datetime.datetime | None = None,
    ) -> int: ...
    async def resume_queue_ex(self, cursor: AsyncCursor[DictRow], name: str) -> int: ...
    async def get_all_workers(self) -> list[dict[str, Any]]: ...
    async def notify(
        self, cursor: AsyncCursor[Any], event: str, payload: dict[str, Any]
    ) -> None: ...
    async def notify_many(
        self, cursor: AsyncCursor[Any], events: Iterable[tuple[str, dict[str, Any]]]
    ) -> None: ...
    def sync_notify(
        self, cursor: Cursor[Any], event: str, payload: dict[str, Any]
    ) -> None: ...
    async def cancel_job(self, ref: Reference) -> None: ...
    async def cancel_job_ex(
        self, cursor: AsyncCursor[DictRow], ref: Reference
    ) -> int: ...
    async def retry_jobs(self, refs: list[Reference]) -> None: ...
    async def purge_jobs(self, refs: list[Reference]) -> None: ...
    async def retry_jobs_ex(
        self, cursor: AsyncCursor[DictRow], refs: list[Reference]
    ) -> set[str]: ...
    async def purge_jobs_ex(
        self, cursor: AsyncCursor[DictRow], refs: list[Reference]
    ) -> int: ...
