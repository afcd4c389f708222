"""Who looks at a dashboard, and what that person may do."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a visitor may do.

    VIEWER sees jobs, queues, workers and schedules and changes nothing. OPERATOR may also
    pause and resume queues, and retry and cancel jobs.
    """

    VIEWER = "viewer"
    OPERATOR = "operator"


@dataclass(frozen=True)
class Visitor:
    """Somebody who may see the dashboard.

    Args:
        name: Stands in the log with each change.
        role: What this person may do.
    """

    name: str
    role: Role


def is_visitor(answer: object) -> bool:
    """Whether an answer of `who` is a visitor; everything else, also True, is nobody."""
    return isinstance(answer, Visitor) and answer.role in tuple(Role)
