"""The changes that an operator may make; the gate refuses all others.

A change does not use Chancy's own routes. Those let a client set the executor of a queue,
which is a path that the worker imports, and fail a job that has succeeded. A change does
the same as the commands `retry`, `cancel`, `pause` and `resume`.
"""

import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, LiteralString, TypeAlias
from uuid import UUID

import psycopg

from chancy_runtime.app import Chancy
from chancy_runtime.dashboard import reading
from chancy_runtime.dashboard.failures import database_failed
from chancy_runtime.errors import WorkersError
from chancy_runtime.jobs.changes import (
    CANCEL,
    COLUMNS,
    RETRY,
    Outcome,
    act,
    find_changeable,
)
from chancy_runtime.jobs.rows import statement
from chancy_runtime.postgres.operations import transaction
from chancy_runtime.queues.pausing import pause, resume

_ACTIONS = {"retry": RETRY, "cancel": CANCEL}
_MOST_IDS = 500
_FIND: LiteralString = (
    f"SELECT {COLUMNS} FROM {{jobs}} j WHERE j.id = ANY(%s) ORDER BY j.id DESC"
)
_NO_PURGE = (
    "Jobs are not deleted here, because they could not be brought back: use the command "
    "purge."
)


class Refused(Exception):
    """A request that is not carried out.

    Args:
        status: The HTTP status of the answer.
        title: The reason.
    """

    def __init__(self, status: int, title: str) -> None:
        super().__init__(title)
        self.status = status
        self.title = title


@dataclass(frozen=True)
class Result:
    """The result of a change for one job or queue.

    Args:
        what: The change, as a participle such as "paused".
        id: The id of the job, or the name of the queue.
        reason: Why the change was not made; empty if it was made.
        status: The HTTP status of an answer about this job or queue only.
    """

    what: str
    id: str
    reason: str = ""
    status: int = 409


Body: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Change:
    """A kind of request that may change something.

    Args:
        method: The HTTP method.
        path: A pattern for the path below the dashboard's path.
        make: Makes the change. Its arguments are the Chancy, the name of the visitor, the
            match of the path and the body.
    """

    method: str
    path: str
    make: Callable[[Chancy, str, re.Match[str], Body], Awaitable[list[Result]]]


async def _one_job(
    chancy: Chancy, name: str, path: re.Match[str], _body: Body
) -> list[Result]:
    return await _change_jobs(chancy, name, path["verb"], [UUID(path["id"])])


async def _jobs(
    chancy: Chancy, name: str, _path: re.Match[str], body: Body
) -> list[Result]:
    verb, ids = body.get("action"), body.get("ids")
    if verb == "purge":
        raise Refused(403, _NO_PURGE)
    if not isinstance(verb, str) or verb not in _ACTIONS:
        raise Refused(422, "The action is neither retry nor cancel.")
    if not isinstance(ids, list) or not 0 < len(ids) <= _MOST_IDS:
        raise Refused(422, f"ids is not a list of 1 to {_MOST_IDS} ids of jobs.")
    if not all(isinstance(id, str) and re.fullmatch(reading.UUID, id) for id in ids):
        raise Refused(422, "One of the ids is not the id of a job.")
    return await _change_jobs(chancy, name, verb, [*dict.fromkeys(map(UUID, ids))])


async def _change_jobs(
    chancy: Chancy, name: str, verb: str, ids: list[UUID]
) -> list[Result]:
    action = _ACTIONS[verb]
    outcome = Outcome(by=f"{name} on the dashboard")
    keys: dict[str, str] = {}
    failure = ""
    try:
        async with chancy.pool.connection() as connection:
            async with transaction(connection) as cursor:
                await cursor.execute(statement(_FIND, chancy.prefix), [ids])
                found = await cursor.fetchall()
            keys = {str(job["id"]): job["unique_key"] for job in found}
            jobs = find_changeable(action, ids, found, outcome)
            await act(chancy, connection, action, jobs, outcome)
    except psycopg.Error as error:
        failure = database_failed(chancy, error)
    results = []
    for id in map(str, ids):
        reason = "" if id in outcome.done else outcome.left.get(id, failure)
        # A unique key may repeat an argument.
        if key := keys.get(id):
            reason = reason.replace(f" {key}", "")
        results.append(Result(action.participle, id, reason))
    return results


async def _queue(
    chancy: Chancy, _name: str, path: re.Match[str], body: Body
) -> list[Result]:
    queue = path["queue"]
    what = "paused" if path["verb"] == "pause" else "resumed"
    until = _time(body.get("resume_at")) if what == "paused" else None
    try:
        async with (
            chancy.pool.connection() as connection,
            transaction(connection) as cursor,
        ):
            if what == "paused":
                await pause(chancy, cursor, [queue], until=until)
            else:
                await resume(chancy, cursor, [queue])
    except WorkersError:
        return [Result(what, queue, "there is no such queue", 404)]
    except psycopg.Error as error:
        return [Result(what, queue, database_failed(chancy, error), 503)]
    return [Result(f"{what} until {until}" if until else what, queue)]


def _time(text: Any) -> datetime | None:
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
        # Python cannot read a time outside of the years 1 to 9999 from the database.
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise Refused(422, "resume_at is not a time in ISO 8601.") from None


CHANGES = (
    Change("POST", "api/v1/jobs", _jobs),
    Change(
        "POST",
        f"api/v1/jobs/(?P<id>{reading.UUID})/(?P<verb>retry|cancel)",
        _one_job,
    ),
    Change("POST", "api/v1/queues/(?P<queue>[^/]+)/(?P<verb>pause|resume)", _queue),
)
_OF_THE_CODE = "Queues are declared in the code of the service; here they can be paused and resumed."
# Changes that Chancy's page also offers, but nobody may make.
CLOSED = (
    ("POST", "api/v1/queues", _OF_THE_CODE),
    ("PATCH", "api/v1/queues/[^/]+", _OF_THE_CODE),
    (
        "DELETE",
        "api/v1/queues/[^/]+",
        "Queues are not deleted here: Chancy would delete their jobs too, and the next "
        "start would declare them again.",
    ),
    ("DELETE", "api/v1/jobs/[^/]+", _NO_PURGE),
)


def change_of(method: str, path: str) -> tuple[Change, re.Match[str]]:
    """Returns the change that a request asks for, and the match of its path.

    Raises:
        Refused: Nobody may make this change here.
    """
    for each in CHANGES:
        if each.method == method and (match := re.fullmatch(each.path, path)):
            return each, match
    for closed, pattern, reason in CLOSED:
        if closed == method and re.fullmatch(pattern, path):
            raise Refused(403, reason)
    raise Refused(403, "The dashboard does not allow this.")


def body_of(content: bytes) -> Body:
    """Returns the body of a request; empty if the request has none.

    Raises:
        Refused: The body is not a JSON object.
    """
    try:
        body = json.loads(content or b"{}")
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise Refused(422, "The body is not a JSON object.")
    return body
