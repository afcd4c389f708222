"""The lines of the log that say who was there and what was changed."""

import logging

from chancy_runtime.app import Chancy
from chancy_runtime.dashboard.visitors import Visitor, one_line

_CHANGE = "dashboard: %s (%s): %s: %s"


def log_visit(chancy: Chancy, message: str, *values: str) -> None:
    """Logs what a visitor did, at INFO.

    At WARNING where the service's log takes no INFO, as in one that nobody configured: who
    paused a queue would be nowhere otherwise.
    """
    is_taken = chancy.log.isEnabledFor(logging.INFO)
    chancy.log.log(logging.INFO if is_taken else logging.WARNING, message, *values)


def log_change(chancy: Chancy, visitor: Visitor, what: str, problem: str = "") -> None:
    """Logs a change, or at WARNING why it was not made."""
    texts = map(one_line, (visitor.name, visitor.role, what, problem or "done"))
    if problem:
        chancy.log.warning(_CHANGE, *texts)
    else:
        log_visit(chancy, _CHANGE, *texts)
