"""The library is tested on a real PostgreSQL, through the fixtures that it gives to services."""

import billing_service
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
    return Service(
        billing_service.create_chancy,
        billing_service.initialize_workers,
        billing_service.get_chancy,
    )
