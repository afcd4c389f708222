"""The audit log: who visited the dashboard, and what they changed."""

import logging

from chancy_runtime.app import Chancy
from chancy_runtime.dashboard.visitors import Visitor, one_line

_CHANGE = "dashboard: %s (%s): %s: %s"


def log_visit(chancy: Chancy, message: str, *values: str) -> None:
    """Logs what a visitor did, at INFO.

    Where the service's log drops INFO, as an unconfigured log does, it logs at WARNING:
    otherwise no line would say who paused a queue.
    """
    shows_info = chancy.log.isEnabledFor(logging.INFO)
    chancy.log.log(logging.INFO if shows_info else logging.WARNING, message, *values)


def log_change(chancy: Chancy, visitor: Visitor, what: str, problem: str = "") -> None:
    """Logs a change, or at WARNING the reason why it was not made."""
    texts = map(one_line, (visitor.name, visitor.role, what, problem or "done"))
    if problem:
        chancy.log.warning(_CHANGE, *texts)
    else:
        log_visit(chancy, _CHANGE, *texts)
