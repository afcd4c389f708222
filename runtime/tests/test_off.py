"""If WORKERS_MODE is off, a start touches no database, and a test can see pushed jobs."""

import functools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
from billing_service import create_chancy, get_chancy, initialize_workers, succeeds
from chancy_runtime import (
    Chancy,
    Job,
    Reference,
    Worker,
    WorkersError,
    database_url,
    get_secret_value,
    join_when_database_is_there,
    together,
)
from chancy_runtime.testing import RunJob
from chancy_runtime.web import health_router, workers_router
from fastapi import FastAPI
from fastapi.testclient import TestClient

from harness.databases import query

pytestmark = pytest.mark.anyio

JOB = succeeds.job.with_kwargs(text="hello")
SENTENCE = (
    "WORKERS_MODE is off, so no database is used: set it to run or push, or let the test "
    "record pushed jobs with the fixture pushed of chancy_runtime.testing"
)


@pytest.fixture
def off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without a URL, whose workers are off."""
    monkeypatch.setenv("WORKERS_MODE", "off")
    monkeypatch.delenv("WORKERS_DATABASE_URL", raising=False)


@pytest.fixture
def untouched(off: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A database that nobody may connect to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"postgresql://127.0.0.1:{server.getsockname()[1]}/billing"
        monkeypatch.setenv("WORKERS_DATABASE_URL", url)
        yield
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


# --- starts -------------------------------------------------------------------------------


@asynccontextmanager
async def two_workers() -> AsyncIterator[None]:
    chancy = create_chancy()
    async with chancy, together(Worker(chancy), Worker(chancy, tags={"heavy"})):
        yield


STARTS = [
    initialize_workers,
    join_when_database_is_there(initialize_workers),
    two_workers,
]


@pytest.mark.parametrize("start", STARTS, ids=["one", "may wait for it", "two workers"])
async def test_a_start_queries_no_database_and_ends_at_once(
    untouched: None, start: Callable[[], AbstractAsyncContextManager[None]]
) -> None:
    async with start():
        if start is not two_workers:
            assert get_chancy().is_open

    with pytest.raises(RuntimeError, match="is not running"):
        get_chancy()


@pytest.mark.parametrize(
    "url", [None, "sqlite+aiosqlite:///test.db", "postgresql://h/d?schema=x", "5432"]
)
def test_a_start_needs_no_url_and_fetches_no_secret(
    off: None, monkeypatch: pytest.MonkeyPatch, url: str | None
) -> None:
    """A service that tests itself on SQLite has such a DATABASE_URL."""
    if url is not None:
        monkeypatch.setenv("DATABASE_URL", url)

    fetched: list[str] = []

    def fetch(name: str) -> str:
        fetched.append(name)
        raise LookupError(name)

    assert "workers-are-off" in database_url("DATABASE-URL", fetch)
    assert fetched == []


@pytest.mark.parametrize("name", ["WORKERS_DATABASE_URL", "DATABASE_URL"])
def test_a_url_that_is_set_is_still_used_for_the_service_s_own_pool(
    off: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "postgres://localhost/orders")

    url = database_url("DATABASE-URL", get_secret_value)

    assert url == "postgresql://localhost/orders"


def test_an_app_is_not_ready_while_its_workers_are_off(untouched: None) -> None:
    """If it is set by mistake in production, the probe must show it."""
    app = FastAPI()
    app.include_router(health_router(get_chancy))
    app.include_router(workers_router(initialize_workers))

    with TestClient(app) as client:
        live, ready = client.get("/health/live"), client.get("/health/ready")

    assert live.status_code == 200
    assert ready.status_code == 503
    assert ready.json()["problems"] == ["the workers are off"]


# --- pushes -------------------------------------------------------------------------------


async def push_many(chancy: Chancy, jobs: list[Any]) -> list[Reference]:
    batches = [batch async for batch in chancy.push_many(jobs, batch_size=2)]
    assert [len(batch) for batch in batches] == [2, 1]
    return [reference for batch in batches for reference in batch]


async def sync_push_many(chancy: Chancy, jobs: list[Any]) -> list[Reference]:
    with chancy:
        batches = [*chancy.sync_push_many(jobs, batch_size=2)]
    assert [len(batch) for batch in batches] == [2, 1]
    return [reference for batch in batches for reference in batch]


async def push_each(
    push: Callable[[Any], Awaitable[Reference]], jobs: list[Any]
) -> list[Reference]:
    return [await push(job) for job in jobs]


async def sync_push(chancy: Chancy, jobs: list[Any]) -> list[Reference]:
    with chancy:
        return [chancy.sync_push(job) for job in jobs]


async def sync_push_many_ex(chancy: Chancy, jobs: list[Any]) -> list[Reference]:
    return chancy.sync_push_many_ex(FAKE_CURSOR, jobs)


# If the service has no database, its tests have no real cursor either.
FAKE_CURSOR: Any = object()
PUSHES: dict[str, Callable[[Chancy, list[Any]], Awaitable[list[Reference]]]] = {
    "push": lambda chancy, jobs: push_each(chancy.push, jobs),
    "push_ex": lambda chancy, jobs: push_each(
        functools.partial(chancy.push_ex, FAKE_CURSOR), jobs
    ),
    "push_many": push_many,
    "push_many_ex": lambda chancy, jobs: chancy.push_many_ex(FAKE_CURSOR, jobs),
    "sync_push": sync_push,
    "sync_push_many": sync_push_many,
    "sync_push_many_ex": sync_push_many_ex,
}
JOBS = [JOB, JOB.with_queue("mail").with_unique_key("once"), succeeds]


@pytest.mark.parametrize("way", list(PUSHES))
async def test_a_push_raises_an_error_with_the_way_out(
    untouched: None, way: str
) -> None:
    async with initialize_workers():
        with pytest.raises(WorkersError) as error:
            await PUSHES[way](get_chancy(), JOBS)

    assert str(error.value) == SENTENCE


async def test_other_uses_of_the_database_raise_the_same_error(untouched: None) -> None:
    async with initialize_workers():
        for call in (
            get_chancy().get_all_queues(),
            get_chancy().get_job(Reference("018f2d3c-0000-7000-8000-000000000000")),
        ):
            with pytest.raises(WorkersError) as error:
                await call
            assert str(error.value) == SENTENCE


@pytest.mark.parametrize("way", list(PUSHES))
async def test_each_push_is_recorded(
    untouched: None, pushed: list[Job], way: str
) -> None:
    async with initialize_workers():
        references = await PUSHES[way](get_chancy(), JOBS)

    assert pushed == [*JOBS[:2], succeeds.job]
    assert [(job.func, job.kwargs, job.queue) for job in pushed] == [
        ("billing_service.succeeds", {"text": "hello"}, "default"),
        ("billing_service.succeeds", {"text": "hello"}, "mail"),
        ("billing_service.succeeds", {}, "default"),
    ]
    assert len(set(references)) == 3


def test_pushes_of_the_app_s_own_thread_are_recorded(
    untouched: None, pushed: list[Job]
) -> None:
    """In synchronous tests of asynchronous and of synchronous routes."""
    app = FastAPI()
    app.include_router(workers_router(initialize_workers))

    @app.post("/orders")
    async def order() -> None:
        await get_chancy().push(JOB)

    @app.post("/invoices")
    def invoice() -> None:
        get_chancy().sync_push(JOB.with_queue("mail"))

    with TestClient(app) as client:
        assert client.post("/orders").status_code == 200
        assert client.post("/invoices").status_code == 200

    assert [job.queue for job in pushed] == ["default", "mail"]


KWARGS: dict[str, Any] = {"ids": (1, 2), "by_day": {3: None}, "name": "Ä \U0001f600"}


async def test_a_job_has_the_arguments_that_a_worker_gets(
    tables: str, request: pytest.FixtureRequest
) -> None:
    job = JOB.with_kwargs(**KWARGS).with_meta({"at": (1,)})
    async with create_chancy() as chancy:
        await chancy.push(job)
        pushed = request.getfixturevalue("pushed")
        await chancy.push(job)

    (recorded,) = pushed
    sent = query(tables, "SELECT kwargs, meta FROM billing_jobs")
    assert sent == [(recorded.kwargs, recorded.meta)]


async def test_a_push_that_no_database_would_take_fails(
    untouched: None, pushed: list[Job]
) -> None:
    async with initialize_workers():
        with pytest.raises(TypeError, match="not JSON serializable"):
            await get_chancy().push(JOB.with_kwargs(file=object()))

    assert pushed == []


async def test_nothing_that_is_recorded_reaches_workers_that_run(
    pushed: list[Job], tables: str
) -> None:
    async with initialize_workers():
        assert len(get_chancy().workers) == 1
        await get_chancy().push(JOB)

    assert pushed == [JOB]
    assert query(tables, "SELECT count(*) FROM billing_jobs") == [(0,)]


async def test_a_job_is_run_or_recorded(pushed: list[Job], run_job: RunJob) -> None:
    with pytest.raises(pytest.fail.Exception, match="use either run_job or pushed"):
        await run_job(JOB)
