"""Who looks at a dashboard."""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a visitor may do.

    VIEWER sees everything and changes nothing. OPERATOR may also pause and resume queues,
    and retry and cancel jobs.
    """

    VIEWER = "viewer"
    OPERATOR = "operator"


@dataclass(frozen=True)
class Visitor:
    """Somebody who may see the dashboard.

    Args:
        name: Stands in the log with each change.
    """

    name: str
    role: Role
