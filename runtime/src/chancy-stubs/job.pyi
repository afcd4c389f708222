import enum
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ParamSpec, Protocol, Self, TypedDict, TypeVar, Unpack
from uuid import UUID

class ErrorT(TypedDict):
    attempt: int
    traceback: str

class Reference:
    __slots__ = ("identifier",)
    identifier: UUID
    def __init__(self, identifier: str | UUID) -> None: ...
    def __eq__(self, other: object) -> bool: ...
    def __hash__(self) -> int: ...

@dataclass
class Limit:
    class Type(enum.Enum):
        MEMORY = "memory"
        TIME = "time"

    type_: Type
    value: int
    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> Limit: ...
    def serialize(self) -> dict[str, Any]: ...

# The fields of Job that @job() and Job.from_func() take.
class _JobOptions(TypedDict, total=False):
    queue: str
    kwargs: dict[str, Any] | None
    priority: int
    max_attempts: int
    scheduled_at: datetime
    limits: list[Limit]
    unique_key: str | None
    meta: dict[str, Any]

@dataclass(frozen=True, kw_only=True)
class Job:
    func: str
    queue: str = "default"
    kwargs: dict[str, Any] | None = ...
    priority: int = 0
    max_attempts: int = 1
    scheduled_at: datetime = ...
    limits: list[Limit] = ...
    unique_key: str | None = None
    meta: dict[str, Any] = ...
    @classmethod
    def from_func(
        cls, func: Callable[..., Any], **kwargs: Unpack[_JobOptions]
    ) -> Self: ...
    def with_priority(self, priority: int) -> Self: ...
    def with_max_attempts(self, max_attempts: int) -> Self: ...
    def with_scheduled_at(self, scheduled_at: datetime) -> Self: ...
    def with_limits(self, limits: list[Limit]) -> Self: ...
    def with_kwargs(self, **kwargs: Any) -> Self: ...
    def with_unique_key(self, unique_key: str) -> Self: ...
    def with_queue(self, queue: str) -> Self: ...
    def with_meta(self, meta: dict[str, Any]) -> Self: ...
    def pack(self) -> dict[str, Any]: ...
    @classmethod
    def unpack(cls, data: dict[str, Any]) -> Self: ...

@dataclass(frozen=True, kw_only=True)
class QueuedJob(Job):
    class State(enum.Enum):
        PENDING = "pending"
        RUNNING = "running"
        FAILED = "failed"
        RETRYING = "retrying"
        SUCCEEDED = "succeeded"

    id: UUID
    claim_id: UUID | None = None
    created_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    attempts: int = 0
    state: State = ...
    errors: list[ErrorT] = ...
    _time_limit_deadline: float | None = None
    @property
    def time_remaining(self) -> float | None: ...
    def checkpoint(self) -> None: ...

P = ParamSpec("P")
R = TypeVar("R", covariant=True)

class IsAJob(Protocol[P, R]):
    job: Job
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

def job(
    **options: Unpack[_JobOptions],
) -> Callable[[Callable[P, R]], IsAJob[P, R]]: ...
