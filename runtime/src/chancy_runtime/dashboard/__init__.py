"""Chancy's dashboard behind a gate: it is closed to everybody whom `who` does not name.

Needs the extra `dashboard` of chancy-runtime.
"""

from chancy_runtime.dashboard.gate import dashboard_router
from chancy_runtime.dashboard.passwords import password_login
from chancy_runtime.dashboard.visitors import Role, Visitor

__all__ = ["Role", "Visitor", "dashboard_router", "password_login"]
