from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from chancy.app import Chancy
from chancy.job import IsAJob, Job
from chancy.plugin import Plugin
from psycopg import AsyncCursor
from psycopg.rows import DictRow

@dataclass
class TriggerConfig:
    id: UUID
    table_name: str
    schema_name: str
    trigger_name: str
    operations: list[str]
    job_template: Job
    enabled: bool
    created_at: datetime

class Trigger(Plugin):
    @staticmethod
    def get_identifier() -> str: ...
    @classmethod
    async def register_trigger(
        cls,
        chancy: Chancy,
        *,
        table_name: str,
        operations: list[str],
        job_template: Job | IsAJob[..., Any],
        schema_name: str = "public",
        enabled: bool = True,
    ) -> UUID: ...
    @classmethod
    async def register_trigger_ex(
        cls,
        cursor: AsyncCursor[DictRow],
        chancy: Chancy,
        table_name: str,
        operations: list[str],
        job_template: Job | IsAJob[..., Any],
        *,
        schema_name: str = "public",
        enabled: bool = True,
    ) -> UUID: ...
    @classmethod
    async def unregister_trigger(
        cls, chancy: Chancy, trigger_id: UUID | str
    ) -> None: ...
    @classmethod
    async def unregister_trigger_ex(
        cls, cursor: AsyncCursor[DictRow], chancy: Chancy, trigger_id: UUID | str
    ) -> None: ...
    @classmethod
    async def enable_trigger(cls, chancy: Chancy, trigger_id: UUID | str) -> bool: ...
    @classmethod
    async def enable_trigger_ex(
        cls, cursor: AsyncCursor[DictRow], chancy: Chancy, trigger_id: UUID | str
    ) -> bool: ...
    @classmethod
    async def disable_trigger(cls, chancy: Chancy, trigger_id: UUID | str) -> bool: ...
    @classmethod
    async def disable_trigger_ex(
        cls, cursor: AsyncCursor[DictRow], chancy: Chancy, trigger_id: UUID | str
    ) -> bool: ...
    @classmethod
    async def get_triggers(
        cls, chancy: Chancy, *, trigger_ids: list[UUID | str] | None = None
    ) -> dict[UUID, TriggerConfig]: ...
    @classmethod
    async def get_triggers_ex(
        cls,
        cursor: AsyncCursor[DictRow],
        chancy: Chancy,
        *,
        trigger_ids: list[UUID | str] | None = None,
    ) -> dict[UUID, TriggerConfig]: ...
