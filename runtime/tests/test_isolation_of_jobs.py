"""No job sees data that another job has set, and no failure is reported with it."""

import contextlib
import contextvars
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import billing_service
import pytest
import sentry_sdk
from chancy.executors import asyncex, thread
from chancy.plugin import Plugin
from chancy_runtime import Chancy, Queue, QueuedJob, Worker, job
from chancy_runtime.testing import RunJob, Service
from sentry_sdk.integrations import Integration
from sentry_sdk.integrations.asyncio import AsyncioIntegration

pytestmark = pytest.mark.anyio


class OnChancysAsync(asyncex.AsyncExecutor):
    """An executor that a team derived from Chancy's class."""


class Binding(thread.ThreadedExecutor):
    """Binds something for its jobs, around the library's part."""

    @classmethod
    def job_wrapper(cls, job: QueuedJob) -> tuple[QueuedJob, Any]:
        if "bind" in job.func:
            bind()
        return super().job_wrapper(job)


EXECUTORS = {
    "async": Chancy.Executor.Async,
    "async_own": f"{__name__}.OnChancysAsync",
    "thread": Chancy.Executor.Threaded,
    "thread_own": f"{__name__}.Binding",
    "process": Chancy.Executor.Process,
}
# In two parts, because an event contains the source lines around an error.
CUSTOMER = "".join(["ALI", "CE"])
customer: contextvars.ContextVar[str] = contextvars.ContextVar("customer", default="")


def bind() -> None:
    sentry_sdk.set_user({"id": CUSTOMER})
    sentry_sdk.set_tag("order", f"{CUSTOMER}-1")
    sentry_sdk.add_breadcrumb(message=f"{CUSTOMER} paid")
    customer.set(CUSTOMER)


class BindsForJobs(Plugin):
    """Binds something for a job before it starts."""

    @staticmethod
    def get_identifier() -> str:
        return "binds_for_jobs"

    async def on_job_starting(self, *, job: QueuedJob, worker: Any) -> QueuedJob:
        assert customer.get() == ""
        if "bind" in job.func:
            bind()
            sentry_sdk.set_tag("plugin", "knows it")
            sentry_sdk.get_current_scope().set_tag("seen", CUSTOMER)
        return job


def fail() -> None:
    raise RuntimeError(f"failed for the customer {customer.get()!r}")


@job()
async def bind_async() -> None:
    bind()


@job()
def bind_sync() -> None:
    bind()


@job()
async def fail_async() -> None:
    fail()


@job()
def fail_sync() -> None:
    fail()


Events = list[dict[str, Any]]


@pytest.fixture(params=[[], [AsyncioIntegration()]], ids=["plain", "asyncio"])
def events(request: pytest.FixtureRequest) -> Iterator[Events]:
    """The events that the service's Sentry would send."""
    sent: Events = []
    integrations: list[Integration] = request.param

    def keep(event: Any, hint: Any) -> None:
        sent.append(event)

    with sentry_sdk.isolation_scope():
        sentry_sdk.init(
            "http://key@127.0.0.1:9/1", before_send=keep, integrations=integrations
        )
        try:
            yield sent
        finally:
            sentry_sdk.init(dsn="")


@pytest.fixture
async def chancy(
    events: Events, tables: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Chancy]:
    """Running workers with a queue for each executor, which runs one job at a time."""
    queues = [
        Queue(name, executor=executor, concurrency=1, eager_polling=True)
        for name, executor in EXECUTORS.items()
    ]
    monkeypatch.setattr(billing_service, "QUEUES", [*billing_service.QUEUES, *queues])
    async with service.running() as running:
        running.plugins[BindsForJobs.get_identifier()] = BindsForJobs()
        yield running


async def test_a_failure_carries_no_data_of_a_job_before_it(
    run_job: RunJob, events: Events
) -> None:
    for queue in EXECUTORS:
        binding = bind_async if "async" in queue else bind_sync
        ended = await run_job(binding.job.with_queue(queue), timeout=60)
        assert ended.state == QueuedJob.State.SUCCEEDED, ended.errors

    failures = []
    for queue in EXECUTORS:
        failing = fail_async if "async" in queue else fail_sync
        ended = await run_job(failing.job.with_queue(queue), timeout=60)
        failures.append(ended.errors[0]["traceback"])

    assert len(events) == len(EXECUTORS)
    assert CUSTOMER not in json.dumps(events, default=str)
    assert ["failed for the customer ''" in text for text in failures] == [True] * 5
    # Other code of the process, such as an HTTP request, does not see it either.
    sentry_sdk.capture_message("from a request")
    assert CUSTOMER not in json.dumps(events[-1], default=str)
    assert customer.get() == ""


@job(queue="async")
async def bind_and_fail_async() -> None:
    bind()
    fail()


@job(queue="thread")
def bind_and_fail_sync() -> None:
    bind()
    fail()


class Terse(RuntimeError):
    """Leaves its attributes out where it is pickled, as errors of SQLAlchemy do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Terse, self.args


class Strict(RuntimeError):
    """Refuses attributes that it does not know."""

    def __setstate__(self, state: dict[str, Any] | None) -> None:
        assert not state


class Stuck(RuntimeError):
    """Cannot be unpickled."""

    def __init__(self, *, reason: str) -> None:
        super().__init__(reason)


@job(queue="process")
def bind_and_fail_in_child(*, error: str) -> None:
    sentry_sdk.init("http://key@127.0.0.1:9/1")  # Without it, breadcrumbs are dropped.
    bind()
    sentry_sdk.set_context("basket", {"of": CUSTOMER, "lock": threading.Lock()})
    if error == "terse":
        raise Terse("in a few words")
    if error == "strict":
        raise Strict("in a few words")
    raise Stuck(reason="in a few words") if error == "stuck" else RuntimeError(error)


@pytest.mark.parametrize("events", [[]], indirect=True)
async def test_a_failure_in_a_child_process_carries_the_data_of_its_job_and_only_that(
    run_job: RunJob, events: Events
) -> None:
    kinds = {"usual": "RuntimeError", "terse": "Terse", "strict": "Strict"}
    kinds["stuck"] = "JobError"

    for error in kinds:
        await run_job(bind_and_fail_in_child.job.with_kwargs(error=error), timeout=60)
        await run_job(fail_sync.job.with_queue("process"), timeout=60)

    assert len(events) == 2 * len(kinds)
    for event, other, kind in zip(
        events[::2], events[1::2], kinds.values(), strict=True
    ):
        assert event["exception"]["values"][-1]["type"] == kind
        assert event["user"]["id"] == event["contexts"]["basket"]["of"] == CUSTOMER
        assert event["tags"]["order"] == f"{CUSTOMER}-1"
        assert (event["tags"]["service"], event["tags"]["plugin"]) == (
            "billing",
            "knows it",
        )
        crumbs = [each["message"] for each in event["breadcrumbs"]["values"]]
        assert crumbs[-1] == f"{CUSTOMER} paid"
        assert CUSTOMER not in json.dumps(other, default=str)


@pytest.mark.parametrize("failing", [bind_and_fail_async, bind_and_fail_sync])
async def test_a_failure_carries_the_data_of_its_own_job_and_only_that(
    failing: Any, run_job: RunJob, events: Events
) -> None:
    await run_job(failing)
    await run_job(fail_sync.job.with_queue("thread"))

    event, other = events
    assert CUSTOMER not in json.dumps(other, default=str)
    assert event["user"]["id"] == CUSTOMER
    assert event["tags"]["order"] == f"{CUSTOMER}-1"
    assert event["tags"]["service"] == "billing"


async def test_tags_that_the_service_sets_for_all_events_stay(
    tables: str, service: Service
) -> None:
    sent: Events = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(sentry_sdk.isolation_scope())
        sentry_sdk.init(
            "http://key@127.0.0.1:9/1",
            before_send=lambda event, hint: sent.append(event),  # type: ignore[arg-type]
        )
        stack.callback(sentry_sdk.init, dsn="")
        sentry_sdk.set_tag("region", "europe")
        async with service.running() as running:
            await running.wait_for_job(
                await running.push(billing_service.fails), timeout=60
            )

    (event,) = sent
    assert event["tags"]["region"] == "europe"


async def test_a_task_of_the_workers_keeps_its_scope_to_itself(
    events: Events, chancy: Chancy
) -> None:
    async def task() -> None:
        sentry_sdk.set_user({"id": CUSTOMER})
        raise RuntimeError("this task always fails")

    (worker,) = chancy.workers
    assert isinstance(worker, Worker)
    await worker.manager.add("mine", task())

    assert events[0]["tags"]["chancy.task"] == "mine"
    chancy.monitor.report("something else", None, task="other")
    assert CUSTOMER not in json.dumps(events[1], default=str)
