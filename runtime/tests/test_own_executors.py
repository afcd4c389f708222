"""A service's own executors, as Chancy documents them, on the classes of the library."""

import dataclasses
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from types import ModuleType
from typing import Any
from uuid import uuid4

import billing_service
import chancy_runtime
import pytest
from chancy import Reference
from chancy.executors import asyncex, process, thread
from chancy.executors.base import Executor
from chancy_runtime import (
    AsyncExecutor,
    Chancy,
    Job,
    Queue,
    QueuedJob,
    ThreadedExecutor,
    job,
)
from chancy_runtime.testing import RunJob, Service

pytestmark = pytest.mark.anyio


def with_database(
    function: Callable[..., Any], kwargs: dict[str, Any]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    return function, {**kwargs, "db": "the database"}


class InjectingAsync(AsyncExecutor):
    """Gives each job the service's database."""

    @classmethod
    def get_function_and_kwargs(
        cls, job: QueuedJob
    ) -> tuple[Callable[..., Any], dict[str, Any]]:
        return with_database(*super().get_function_and_kwargs(job))


class InjectingThreads(ThreadedExecutor):
    """Gives each job the service's database."""

    @classmethod
    def get_function_and_kwargs(
        cls, job: QueuedJob
    ) -> tuple[Callable[..., Any], dict[str, Any]]:
        return with_database(*super().get_function_and_kwargs(job))


class ReplacingThreads(ThreadedExecutor):
    """Changes each job before it runs."""

    async def on_job_starting(self, job: QueuedJob) -> QueuedJob:
        job = await super().on_job_starting(job)
        return dataclasses.replace(job, kwargs={"text": "hello"})


class PreparingProcesses(process.ProcessExecutor):
    """Sets up each child process, and does not call super()."""

    @staticmethod
    def on_initialize_worker() -> None:
        os.environ["PREPARED"] = "yes"


@job(queue="prepared")
def is_prepared() -> None:
    assert os.environ["PREPARED"] == "yes"
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


@job(queue="replacing")
def needs_text(*, text: str = "") -> None:
    assert text == "hello"


TEAM = """
class QueuedJob:
    pass

def takes(*, own: "QueuedJob", theirs: "runtime.QueuedJob"):
    pass
"""


def test_an_annotation_in_a_string_means_what_the_module_imports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = ModuleType("team_module")
    exec(TEAM, vars(module))
    setattr(module, "runtime", chancy_runtime)  # noqa: B010
    monkeypatch.setitem(sys.modules, module.__name__, module)
    queued = QueuedJob(
        id=uuid4(),
        func="team_module.takes",
        kwargs={"own": 1},
        created_at=datetime.now(tz=UTC),
    )

    _, kwargs = AsyncExecutor.get_function_and_kwargs(queued)

    assert kwargs == {"own": 1, "theirs": queued}


@job(queue="async")
async def needs_database(*, db: str) -> None:
    assert db == "the database"


@job(queue="thread")
def needs_database_sync(*, db: str) -> None:
    assert db == "the database"


@job(queue="process")
def nothing() -> None: ...


@pytest.fixture
async def chancy(
    tables: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Chancy]:
    queues = [
        Queue("async", executor=f"{__name__}.InjectingAsync", eager_polling=True),
        Queue("thread", executor=f"{__name__}.InjectingThreads", eager_polling=True),
        Queue("threads", executor=Chancy.Executor.Threaded, eager_polling=True),
        Queue("replacing", executor=f"{__name__}.ReplacingThreads", eager_polling=True),
        Queue(
            "prepared", executor=f"{__name__}.PreparingProcesses", eager_polling=True
        ),
        Queue(
            "process",
            executor=Chancy.Executor.Process,
            executor_options={"maximum_jobs_per_worker": None},
            concurrency=1,
            eager_polling=True,
        ),
    ]
    monkeypatch.setattr(billing_service, "QUEUES", [*billing_service.QUEUES, *queues])
    async with service.running() as running:
        yield running


@pytest.mark.parametrize(
    "function",
    [needs_database, needs_database_sync, nothing, needs_text, is_prepared],
)
async def test_each_job_of_a_queue_succeeds_and_not_only_the_first(
    function: Any, run_job: RunJob
) -> None:
    for _ in range(3):
        ended = await run_job(function, timeout=60)
        assert ended.state == QueuedJob.State.SUCCEEDED, ended.errors


class OnChancysAsync(asyncex.AsyncExecutor):
    """An executor that a team derived from Chancy's class."""

    async def _job_wrapper(self, job: QueuedJob) -> None:
        wrapped.append(job.func)
        await super()._job_wrapper(job)


class OnChancysThreads(thread.ThreadedExecutor):
    """The same for threads."""

    @classmethod
    def get_function_and_kwargs(
        cls, job: QueuedJob
    ) -> tuple[Callable[..., Any], dict[str, Any]]:
        return leaves_sync, {}


class OnChancysProcesses(process.ProcessExecutor):
    """The same for child processes."""

    @classmethod
    def get_function_and_kwargs(
        cls, job: QueuedJob
    ) -> tuple[Callable[..., Any], dict[str, Any]]:
        return with_database(*super().get_function_and_kwargs(job))


class OnExecutor(Executor):
    """An executor that a team derived from Chancy's base class."""

    async def push(self, job: QueuedJob) -> None:
        await self.on_job_completed(job=job)

    async def stop(self) -> None: ...

    async def cancel(self, ref: Reference) -> None: ...

    def get_running_jobs(self) -> list[QueuedJob]:
        return []

    def get_default_concurrency(self) -> int:
        return 1

    def __len__(self) -> int:
        return 0


wrapped: list[str] = []


@job(queue="own")
async def leaves() -> None:
    raise SystemExit(3)


@job(queue="own")
def leaves_sync(**_: str) -> None:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("OnChancysAsync", leaves),
        ("OnChancysThreads", leaves_sync),
        ("OnChancysProcesses", leaves_sync),
    ],
)
async def test_one_that_is_derived_from_chancys_has_the_protection(
    kind: str,
    function: Any,
    tables: str,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = Queue("own", executor=f"{__name__}.{kind}", eager_polling=True)
    monkeypatch.setattr(billing_service, "QUEUES", [own])

    async with service.running() as running:
        ended = await running.wait_for_job(await running.push(function), timeout=60)

    assert ended
    assert "JobExit: the job raised SystemExit" in ended.errors[0]["traceback"]
    assert not [text for text in caplog.messages if "not derived from" in text]
    assert wrapped == [f"{__name__}.leaves"] * (kind == "OnChancysAsync")
    wrapped.clear()


async def test_an_unprotected_executor_is_named_with_the_classes_to_derive_from(
    tables: str,
    service: Service,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    own = Queue("own", executor=f"{__name__}.InjectingAsync")
    foreign = Queue("foreign", executor=f"{__name__}.OnExecutor", eager_polling=True)
    monkeypatch.setattr(billing_service, "QUEUES", [own, foreign])

    async with service.running() as running:
        pushed = await running.push(
            billing_service.succeeds.job.with_kwargs(text="hello").with_queue("foreign")
        )
        ended = await running.wait_for_job(pushed, timeout=60)

    assert ended and ended.state == QueuedJob.State.SUCCEEDED
    (line,) = [text for text in caplog.messages if "not derived from" in text]
    assert line.startswith(
        f"the queue foreign runs its jobs with {__name__}.OnExecutor"
    )
    assert "Derive it from AsyncExecutor" in line


class Unhashable:
    """A callable that cannot be a key."""

    __hash__ = None  # type: ignore[assignment]

    def __call__(self, *, text: str) -> None:
        assert text == "hello"


unhashable = Unhashable()


async def test_a_callable_that_cannot_be_hashed_is_a_job(run_job: RunJob) -> None:
    for queue in ("threads", "process", "threads"):
        job = Job(func=f"{__name__}.unhashable", queue=queue, kwargs={"text": "hello"})
        ended = await run_job(job, timeout=60)
        assert ended.state == QueuedJob.State.SUCCEEDED, ended.errors
