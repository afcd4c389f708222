from datetime import datetime
from typing import Any, TypedDict
from zoneinfo import ZoneInfo

from chancy.app import Chancy
from chancy.job import IsAJob, Job
from chancy.plugin import Plugin

DEFAULT_TIMEZONE: ZoneInfo

# Private, and used by chancy_runtime:
def _next_run(cron: str, now: datetime, tz: ZoneInfo) -> datetime: ...

class _Schedule(TypedDict):
    unique_key: str
    job: Job
    cron: str
    timezone: str
    last_run: datetime | None
    next_run: datetime

class Cron(Plugin):
    poll_interval: int
    def __init__(self, *, poll_interval: int = 60) -> None: ...
    @staticmethod
    def get_identifier() -> str: ...
    @classmethod
    async def get_schedules(
        cls, chancy: Chancy, *, unique_keys: list[str] | None = None
    ) -> dict[str, _Schedule]: ...
    @classmethod
    async def unschedule(cls, chancy: Chancy, *unique_keys: str) -> None: ...
    @classmethod
    async def schedule(
        cls,
        chancy: Chancy,
        cron: str,
        *jobs: Job | IsAJob[..., Any],
        timezone: ZoneInfo = ...,
    ) -> None: ...
