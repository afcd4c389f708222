"""The environment that tests give to the programs they start."""

import os
import re

# Variables that a user may have set, and that could lead a test to the user's database.
PRIVATE = re.compile(
    "WORKERS_|POSTGRES_|PG|SENTRY_|AZURE_|LOG_LEVEL|VIRTUAL_ENV|PYTEST_"
)


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without anything that could lead to a real service."""
    kept = {
        name: value for name, value in os.environ.items() if not PRIVATE.match(name)
    }
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", **variables}
