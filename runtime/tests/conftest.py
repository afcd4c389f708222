"""The library is tested on real servers, with the fixtures that it has for services."""

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import billing_service
import pytest
from chancy_runtime.testing import (
    Service,
    anyio_backend,
    chancy,
    database_url,
    pushed,
    pytest_runtest_setup,
    run_job,
    server_url,
    tables,
)

from harness.databases import database
from harness.program import workers
from harness.recorder import Recorder, make_tables, migrated_cluster, recorder
from harness.servers import Cluster, embedded_server
from harness.spans import exporter, spans

if TYPE_CHECKING:
    from dashboard_service import Site

__all__ = [
    "anyio_backend",
    "chancy",
    "database_url",
    "exporter",
    "pushed",
    "pytest_runtest_setup",
    "run_job",
    "server_url",
    "spans",
    "tables",
    "workers",
]

pytest_plugins = ["harness.options"]


@pytest.fixture(scope="session")
def service() -> Service:
    """The service whose workers the fixtures start."""
    return Service(
        billing_service.create_chancy,
        billing_service.initialize_workers,
        billing_service.get_chancy,
    )


@pytest.fixture
def own_server_url() -> Iterator[str]:
    """An embedded PostgreSQL for this test only, for roles and other global objects."""
    with embedded_server() as url:
        yield url


@pytest.fixture
def migrated_url(database_url: str) -> str:
    """A database with the example's tables; `tables` is the same for asynchronous tests."""
    make_tables(database_url)
    return database_url


@pytest.fixture(scope="session")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    """The example with default settings; tests leave its files alone."""
    folder = tmp_path_factory.mktemp("backend") / "backend"
    return recorder(folder, settings="Settings()")


@pytest.fixture(scope="session")
def running_server() -> Iterator[Cluster]:
    with migrated_cluster() as running:
        yield running


@pytest.fixture(scope="module")
def server(running_server: Cluster) -> Cluster:
    """A server on TCP that a test may stop; its databases have the example's tables."""
    if not running_server.is_up:
        running_server.start()
    return running_server


@pytest.fixture
def url(server: Cluster) -> Iterator[str]:
    """A database of that server, with the tables and nothing in them."""
    with database(server.url()) as url:
        yield url


@pytest.fixture(scope="session")
def site(server_url: str) -> "Iterator[Site]":
    """Two services with dashboards, imported here so that other tests do not pay for it."""
    from dashboard_service import running_site

    with running_site(server_url) as site:
        yield site


@pytest.fixture
def app_log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, logger="app")
    return caplog
