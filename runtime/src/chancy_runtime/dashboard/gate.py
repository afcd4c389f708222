"""The routes of a dashboard."""

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter

from chancy_runtime.app import Chancy


def dashboard_router(
    get_chancy: Callable[[], Chancy],
    *,
    who: Callable[..., Any],
    hide_arguments: Callable[[str, dict[str, Any]], dict[str, Any]] | None = None,
    path: str = "/dashboard",
) -> APIRouter:
    """Returns the dashboard of a service as a router.

    Args:
        get_chancy: Returns the running Chancy, or raises a RuntimeError.
        who: A FastAPI dependency that returns a Visitor, or None for everybody else. It
            is asked for each request, and for the WebSocket of live events.
        hide_arguments: Gets the function and the arguments of a job and returns what may
            be shown. Without it the value of each argument is hidden.
        path: Where the dashboard is; each service of a process needs its own.
    """
    return APIRouter(prefix=path, include_in_schema=False)
