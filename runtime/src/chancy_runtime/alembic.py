"""Keeps Alembic's autogenerate away from Chancy's tables; in a service's env.py:

from chancy_runtime.alembic import include_object

context.configure(
    connection=connection,
    target_metadata=target_metadata,
    include_object=include_object("billing_", "shipping_"),
)
"""

from collections.abc import Callable
from typing import Any

from chancy_runtime.postgres.migrations import CORE_TABLES, VERSION_TABLE

__all__ = ["include_object"]

# The tables of all plugins of Chancy 0.26, whether a service uses them or not.
PLUGIN_TABLES = (
    *("cron", "metric_definitions", "metrics", "triggers"),
    *("workflow_steps", "workflows"),
)


def include_object(*prefixes: str) -> Callable[[Any, str | None, str, bool, Any], bool]:
    """Returns the function that tells Alembic which objects to compare with the models.

    It leaves out Chancy's tables with their columns, indexes and constraints, and nothing
    else: a table of the service's own that starts with the same prefix is compared.

    Args:
        prefixes: The prefixes of Chancy's tables, one for each service that uses the
            database.

    Raises:
        TypeError: There is no prefix, or Alembic called this function itself.
    """
    if not prefixes or not all(isinstance(prefix, str) for prefix in prefixes):
        raise TypeError(
            "include_object() takes the prefixes of Chancy's tables: write "
            'include_object=include_object("billing_") in env.py'
        )
    names = (VERSION_TABLE, *CORE_TABLES, *PLUGIN_TABLES)
    left_out = {f"{prefix}{name}" for prefix in prefixes for name in names}

    def is_included(
        object: Any, name: str | None, type_: str, reflected: bool, compare_to: Any
    ) -> bool:
        table = name if type_ == "table" else getattr(object, "table", None)
        return getattr(table, "name", table) not in left_out

    return is_included
