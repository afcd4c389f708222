"""The visitors of a dashboard, and what they may do."""

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
        name: Logged with each change.
        role: What this person may do.
    """

    name: str
    role: Role


def is_visitor(answer: object) -> TypeGuard[Visitor]:
    """Whether an answer of `who` is a visitor; nothing else is, not even True."""
    return (
        isinstance(answer, Visitor)
        and isinstance(answer.name, str)
        and answer.name != ""
        and answer.role in tuple(Role)
    )


def one_line(text: str) -> str:
    """Returns a text that cannot forge another part of its log line."""
    return "".join(each if each.isprintable() else "?" for each in text)[:200]
