"""The jobs that a command shows or changes: by id, or by a filter."""

import argparse
import contextlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString
from uuid import UUID

import chancy
from psycopg import AsyncConnection
from psycopg.rows import DictRow, TupleRow

from chancy_runtime.jobs.rows import statement
from chancy_runtime.postgres.operations import transaction

_LARGEST_LIMIT = 1_000_000
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
# The time of the last event of a job.
_ACTIVITY: LiteralString = "GREATEST(j.created_at, j.started_at, j.completed_at)"
_LONGEST_SPAN = timedelta(days=36_500)
# The queues that have jobs, from the index: a row for each of them, not for each job.
HELD: LiteralString = """
held (name) AS (
    (SELECT queue FROM {jobs} ORDER BY queue LIMIT 1)
    UNION ALL
    SELECT next.queue FROM held CROSS JOIN LATERAL (
        SELECT queue FROM {jobs} WHERE queue > held.name ORDER BY queue LIMIT 1
    ) AS next
)
"""


def add_filters(
    parser: argparse.ArgumentParser, *, states: Sequence[str], usual: str, limit: int
) -> None:
    """Adds the arguments that select the jobs of a command.

    Args:
        states: The states in which the command accepts jobs.
        usual: The states without --state, as the help shows them.
        limit: The number of jobs without --limit.
    """
    parser.add_argument(
        "ids", nargs="*", type=_job_id, metavar="ID", help="ids of jobs"
    )
    parser.add_argument(
        "--state",
        dest="states",
        action="append",
        choices=states,
        help=f"jobs in this state; can be repeated ({usual} without it)",
    )
    parser.add_argument(
        "--queue",
        dest="queues",
        action="append",
        metavar="QUEUE",
        help="jobs of this queue; can be repeated",
    )
    parser.add_argument(
        "--func",
        metavar="NAME",
        help="jobs that call this function; its module can be left out",
    )
    for name, text in (("since", "at or after"), ("before", "before")):
        parser.add_argument(
            f"--{name}",
            type=moment,
            metavar="WHEN",
            help=f"jobs that were last pushed, started or ended {text} this time: 45m, "
            "12h or 7d ago, or 2026-11-29T04:00 in UTC",
        )
    add_limit(parser, limit)
    parser.set_defaults(usage_error=parser.error)


def add_limit(parser: argparse.ArgumentParser, limit: int) -> None:
    """Adds --limit with its default."""
    parser.add_argument(
        "--limit",
        type=_limit,
        default=limit,
        metavar="N",
        help=f"at most N of them ({limit:,} without it)",
    )


def check_filters(arguments: argparse.Namespace, *, needed: bool) -> None:
    """Ends the program with a message when the arguments do not select jobs properly.

    Args:
        needed: Whether ids or a filter must be given.
    """
    has_filter = any(
        getattr(arguments, name) is not None
        for name in ("states", "queues", "func", "since", "before")
    )
    if arguments.ids and has_filter:
        arguments.usage_error("name jobs by their ids or by a filter, not by both")
    if needed and not arguments.ids and not has_filter:
        arguments.usage_error(
            "say which jobs: by their ids, or with --state, --queue, --func, --since or "
            "--before"
        )


async def select(
    connection: AsyncConnection[TupleRow],
    app: chancy.Chancy,
    arguments: argparse.Namespace,
    columns: LiteralString,
    *,
    states: Sequence[str] = (),
) -> tuple[list[DictRow], bool]:
    """Returns the selected jobs, the newest first, and whether there are more.

    Args:
        columns: SQL for the columns of each job, whose row is `j`.
        states: The states that a filter without --state selects; empty for all states.
    """
    limit: int = len(arguments.ids) or arguments.limit
    async with transaction(connection) as cursor:
        await cursor.execute(*selection(app, arguments, columns, limit + 1, states))
        rows = await cursor.fetchall()
    return rows[:limit], len(rows) > limit


def selection(
    app: chancy.Chancy,
    arguments: argparse.Namespace,
    columns: LiteralString,
    limit: int,
    states: Sequence[str],
) -> tuple[bytes, dict[str, Any]]:
    """Returns the statement of select(), and its parameters."""
    condition, values = _filter(arguments, arguments.states or [*states])
    if arguments.ids:
        condition, values = "j.id = ANY(%(ids)s)", {"ids": arguments.ids}
    query = statement(
        f"SELECT {columns} FROM {{jobs}} j WHERE {condition} "
        "ORDER BY j.id DESC LIMIT %(limit)s",
        app.prefix,
    )
    return query, {**values, "limit": limit}


def _filter(
    arguments: argparse.Namespace, states: Sequence[str]
) -> tuple[LiteralString, dict[str, Any]]:
    """Returns the condition of a filter, and its parameters."""
    parts: list[LiteralString] = []
    if states:
        parts.append("j.state = ANY(%(states)s)")
    if arguments.queues:
        parts.append("j.queue = ANY(%(queues)s)")
    elif states:
        # The index by state begins with the queue, and only PostgreSQL 18 can skip that.
        parts.append(
            f"j.queue = ANY(ARRAY(WITH RECURSIVE {HELD} SELECT name FROM held))"
        )
    if arguments.func is not None:
        parts.append(
            "(j.func = %(func)s::text "
            "OR right(j.func, length(%(func)s::text) + 1) = '.' || %(func)s::text)"
        )
    if arguments.since is not None:
        parts.append(f"{_ACTIVITY} >= {_time('since', arguments.since)}")
    if arguments.before is not None:
        parts.append(f"{_ACTIVITY} < {_time('before', arguments.before)}")
    values = {
        "states": states,
        "queues": arguments.queues,
        "func": arguments.func,
        "since": arguments.since,
        "before": arguments.before,
    }
    return " AND ".join(parts) or "true", values


def _time(name: LiteralString, value: datetime | timedelta) -> LiteralString:
    """Returns SQL for a time of the server's clock; a time span counts back from now."""
    if isinstance(value, timedelta):
        return f"NOW() - %({name})s::interval"
    return f"%({name})s::timestamptz"


def moment(text: str) -> datetime | timedelta:
    """Returns a time, or a time span that counts back from now.

    Raises:
        argparse.ArgumentTypeError: The text is neither.
    """
    if span := re.fullmatch(r"(\d{1,9})([smhdw])", text):
        value = timedelta(**{_UNITS[span[2]]: int(span[1])})
        if value <= _LONGEST_SPAN:
            return value
    else:
        with contextlib.suppress(ValueError):
            time = datetime.fromisoformat(text)
            return time if time.tzinfo else time.replace(tzinfo=UTC)
    raise argparse.ArgumentTypeError(
        f"{text!r} is not a time: write 45m, 12h or 7d for how long ago, or a time in UTC "
        "such as 2026-11-29T04:00"
    )


def _job_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not the id of a job: copy it from the command jobs or the log"
        ) from None


def _limit(text: str) -> int:
    if text.isdecimal() and 0 < int(text) <= _LARGEST_LIMIT:
        return int(text)
    raise argparse.ArgumentTypeError(
        f"{text!r} is not a whole number from 1 to {_LARGEST_LIMIT:,}"
    )
