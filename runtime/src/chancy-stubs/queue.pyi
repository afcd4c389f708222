import datetime
import enum
from dataclasses import dataclass
from typing import Any

@dataclass(frozen=True)
class Queue:
    class State(enum.Enum):
        ACTIVE = "active"
        PAUSED = "paused"

    name: str
    concurrency: int | None = None
    tags: set[str] = ...
    state: State = ...
    executor: str = "chancy.executors.process.ProcessExecutor"
    executor_options: dict[str, Any] = ...
    polling_interval: int = 5
    rate_limit: int | None = None
    rate_limit_window: int | None = None
    resume_at: datetime.datetime | None = None
    eager_polling: bool = False
    @classmethod
    def unpack(cls, data: dict[str, Any]) -> Queue: ...
    def pack(self) -> dict[str, Any]: ...
