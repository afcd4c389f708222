"""Chancy's dashboard behind a gate, which admits only the visitors that `who` returns.

Needs the extra `dashboard` of chancy-runtime.
"""

try:
    import fastapi  # noqa: F401
    import itsdangerous  # noqa: F401
    import uvicorn  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"chancy_runtime.dashboard needs {error.name}: install chancy-runtime[dashboard], "
        "or remove the dashboard"
    ) from error

from chancy_runtime.dashboard.gate import dashboard_router
from chancy_runtime.dashboard.passwords import password_login
from chancy_runtime.dashboard.visitors import Role, Visitor

__all__ = ["Role", "Visitor", "dashboard_router", "password_login"]
