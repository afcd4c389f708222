import enum
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self, TextIO

from chancy.app import Chancy
from chancy.job import IsAJob, Job, QueuedJob
from chancy.plugin import Plugin
from chancy.rule import Rule, SQLAble
from chancy.worker import Worker
from psycopg import AsyncCursor
from psycopg.rows import DictRow

class CircularDependencyError(ValueError): ...
class InvalidDependencyError(ValueError): ...
class EmptyWorkflowError(ValueError): ...

@dataclass
class WorkflowStep:
    job: Job | IsAJob[..., Any]
    step_id: str
    dependencies: list[str] = ...
    state: QueuedJob.State | None = ...
    job_id: str | None = None

@dataclass
class Workflow:
    class State(enum.Enum):
        PENDING = "pending"
        RUNNING = "running"
        COMPLETED = "completed"
        FAILED = "failed"

    name: str
    steps: dict[str, WorkflowStep] = ...
    state: State = ...
    id: str = ...
    created_at: datetime | None = None
    updated_at: datetime | None = None
    def add(
        self,
        step_id: str,
        job: Job | IsAJob[..., Any],
        dependencies: list[str] | None = None,
    ) -> Workflow: ...
    def add_group(
        self,
        jobs: list[tuple[str, Job | IsAJob[..., Any]]],
        dependencies: list[str] | None = None,
    ) -> Workflow: ...
    def __len__(self) -> int: ...
    def __iadd__(self, other: WorkflowStep) -> Self: ...
    def __iter__(self) -> Iterator[tuple[str, WorkflowStep]]: ...
    def __getitem__(self, key: str) -> WorkflowStep: ...
    def __delitem__(self, key: str) -> None: ...
    @property
    def is_complete(self) -> bool: ...
    @property
    def is_running(self) -> bool: ...
    def validate(self) -> None: ...
    @property
    def steps_by_state(self) -> dict[QueuedJob.State, list[WorkflowStep]]: ...

class WorkflowPlugin(Plugin):
    class Rules:
        class Age(Rule):
            def __init__(self) -> None: ...

    polling_interval: int
    max_workflows_per_run: int
    max_pending_workflows: int
    pruning_rule: SQLAble
    def __init__(
        self,
        *,
        polling_interval: int = 30,
        max_workflows_per_run: int = 1000,
        pruning_rule: SQLAble | None = None,
        max_pending_workflows: int = 10000,
    ) -> None: ...
    @staticmethod
    def get_identifier() -> str: ...
    @classmethod
    async def fetch_workflow(cls, chancy: Chancy, id_: str) -> Workflow | None: ...
    @classmethod
    async def fetch_workflow_ex(
        cls, cursor: AsyncCursor[DictRow], chancy: Chancy, id_: str
    ) -> Workflow | None: ...
    @classmethod
    async def fetch_workflows(
        cls,
        chancy: Chancy,
        *,
        states: list[str] | None = None,
        ids: list[str] | None = None,
        limit: int = 100,
    ) -> list[Workflow]: ...
    @staticmethod
    async def fetch_workflows_ex(
        cursor: AsyncCursor[DictRow],
        chancy: Chancy,
        *,
        states: list[str] | None = None,
        ids: list[str] | None = None,
        limit: int = 100,
    ) -> list[Workflow]: ...
    @classmethod
    async def push(cls, chancy: Chancy, workflow: Workflow) -> str: ...
    @classmethod
    async def push_ex(
        cls,
        cursor: AsyncCursor[DictRow],
        chancy: Chancy,
        workflow: Workflow,
        worker: Worker | None = None,
    ) -> str: ...
    @staticmethod
    def generate_dot(workflow: Workflow, output: TextIO) -> None: ...
    @classmethod
    async def wait_for_workflow(
        cls,
        chancy: Chancy,
        workflow_id: str,
        *,
        interval: int = 1,
        timeout: float | None = None,
    ) -> Workflow: ...

class Sequence:
    name: str
    jobs: list[Job | IsAJob[..., Any]]
    def __init__(
        self, name: str, jobs: list[Job | IsAJob[..., Any]] | None = None
    ) -> None: ...
    def add(self, job: Job | IsAJob[..., Any]) -> Self: ...
    async def push(self, chancy: Chancy) -> str: ...
