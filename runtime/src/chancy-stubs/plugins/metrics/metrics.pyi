import datetime
import logging
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypedDict
from uuid import UUID

from chancy.app import Chancy
from chancy.plugin import Plugin

Resolution: TypeAlias = Literal["1min", "5min", "1hour", "1day"]
MetricType: TypeAlias = Literal["counter", "gauge", "histogram"]
MetricValue: TypeAlias = float | dict[str, float | int]
RESOLUTIONS: dict[Resolution, int]
DEFAULT_POINTS: dict[Resolution, int]
CHUNK_SIZE: int
log: logging.Logger

def utcnow() -> datetime.datetime: ...
def bucket_time(timestamp: datetime.datetime, seconds: int) -> datetime.datetime: ...

@dataclass(frozen=True)
class MetricPoint:
    timestamp: datetime.datetime
    value: MetricValue
    sampled_at: datetime.datetime

@dataclass
class Metric:
    type: MetricType
    unit: str
    data: list[MetricPoint]
    @property
    def aggregation(self) -> Literal["sum", "last", "summary"]: ...
    @property
    def sampled_at(self) -> datetime.datetime | None: ...
    @property
    def summary(self) -> MetricValue | None: ...

class _Metrics(TypedDict):
    start: datetime.datetime
    end: datetime.datetime
    resolution: Resolution
    generated_at: datetime.datetime
    series: dict[str, Metric]

class Metrics(Plugin):
    max_points: dict[Resolution, int]
    sync_interval: int
    maximum_metric_age: int
    collection_interval: int
    max_buffered_points: int
    worker_id: str
    session_id: UUID
    def __init__(
        self,
        *,
        sync_interval: int = 60,
        max_points_per_resolution: dict[Resolution, int] | None = None,
        maximum_metric_age: int = 7776000,
        collection_interval: int = 30,
        max_buffered_points: int = 10000,
    ) -> None: ...
    @staticmethod
    def get_identifier() -> str: ...
    async def increment_counter(
        self, metric_key: str, value: float, *, unit: str = "count"
    ) -> None: ...
    async def record_gauge(
        self, metric_key: str, value: float, *, unit: str = "number"
    ) -> None: ...
    async def record_histogram_value(
        self, metric_key: str, value: float, *, unit: str = "number"
    ) -> None: ...
    def retention(self, resolution: Resolution) -> int: ...
    async def flush(self, chancy: Chancy) -> None: ...
    def window(
        self,
        resolution: Resolution = "5min",
        *,
        start: datetime.datetime | None = None,
        end: datetime.datetime | None = None,
        range_seconds: int | None = None,
        limit: int | None = None,
    ) -> tuple[datetime.datetime, datetime.datetime]: ...
    async def get_metrics(
        self,
        chancy: Chancy,
        metric_prefix: str | None = None,
        worker_id: str | None = None,
        *,
        resolution: Resolution = "5min",
        start: datetime.datetime | None = None,
        end: datetime.datetime | None = None,
        range_seconds: int | None = None,
        limit: int | None = None,
    ) -> _Metrics: ...
    async def list_metrics(self, chancy: Chancy) -> list[str]: ...
