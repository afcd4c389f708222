"""Who looks at a dashboard, and what that person may do."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeGuard


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


def is_visitor(answer: object) -> TypeGuard[Visitor]:
    """Whether an answer of `who` is a visitor; everything else, also True, is nobody."""
    return (
        isinstance(answer, Visitor)
        and isinstance(answer.name, str)
        and answer.name != ""
        and answer.role in tuple(Role)
    )


def one_line(text: str) -> str:
    """Returns a text that cannot look like more than its part of a line of the log."""
    return "".join(each if each.isprintable() else "?" for each in text)[:200]
