"""Retries, cancels and purges jobs by hand.

It uses Chancy's own calls. Chancy's retry and purge ignore the state of a job, so a retry
would run a job again that has just succeeded. Therefore the rows are locked first, and a
job that is no longer in a state for the action is left alone.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString, TypeAlias
from uuid import UUID

import chancy
from chancy import Reference
from chancy.utils import lock_order_key
from psycopg import AsyncConnection, AsyncCursor
from psycopg.errors import UniqueViolation
from psycopg.rows import DictRow

from chancy_runtime.jobs.rows import statement
from chancy_runtime.postgres.operations import transaction

EXECUTORS = {
    chancy.Chancy.Executor.Async: "async",
    chancy.Chancy.Executor.Threaded: "thread",
    chancy.Chancy.Executor.Process: "process",
}
_BATCH = 500
COLUMNS: LiteralString = "j.id, j.state, j.claim_id, j.queue, j.unique_key"
# Locks rows in the order of Chancy's pushes and of saved results, so that none of them can
# deadlock. PostgreSQL checks the state again for a row that changed while this waited.
_LOCK: LiteralString = f"""
SELECT {COLUMNS} FROM unnest(%(ids)s::uuid[]) WITH ORDINALITY AS wanted (id, position)
JOIN {{jobs}} j ON j.id = wanted.id WHERE j.state = ANY(%(states)s)
ORDER BY wanted.position FOR UPDATE OF j
"""
_HOLDER: LiteralString = """
SELECT id FROM {jobs} WHERE unique_key = %s AND state NOT IN ('succeeded', 'failed')
"""
# Without this, a job that was given up after MAX_RESCUES rescues would be given up again
# at the next loss of its worker.
_FORGET_RESCUES: LiteralString = """
UPDATE {jobs} SET meta = meta - 'rescues'
WHERE id = ANY(%s) AND jsonb_typeof(meta) = 'object' AND meta ? 'rescues'
"""
# Chancy's call would leave the failed job without a reason.
_SAY_WHY: LiteralString = """
UPDATE {jobs} SET errors = errors || jsonb_build_array(
    jsonb_build_object('traceback', %s::text, 'attempt', attempts))
WHERE id = ANY(%s) AND jsonb_typeof(errors) = 'array'
"""
_EXECUTORS: LiteralString = "SELECT name, executor FROM {queues} WHERE name = ANY(%s)"
# What happens to a running job that is cancelled, by the executor of its queue.
_ENDS = {
    "async": "is interrupted at its next await",
    "process": "is interrupted",
    "thread": "runs to its end, because a thread cannot be interrupted; its result is not "
    "saved",
}
_ENDS_ITSELF = (
    "runs to its end unless its executor can interrupt it; its result is not saved"
)
_NO_NOTIFICATIONS = (
    "runs to its end, because notifications are off; its result is not saved"
)


@dataclass
class Outcome:
    """The outcome of an action so far.

    Args:
        by: Who acts; cancelled jobs get this as the reason.
        done: The ids of the changed jobs.
        left: By id, why other jobs were left alone.
        ran: The numbers of cancelled jobs that were running, by what happens to them.
    """

    by: str
    done: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    ran: Counter[str] = field(default_factory=Counter)


# Changes the locked jobs, and returns those that it changed.
Change: TypeAlias = Callable[
    [chancy.Chancy, AsyncCursor[DictRow], list[DictRow], Outcome],
    Awaitable[list[DictRow]],
]


@dataclass(frozen=True, kw_only=True)
class Action:
    """A change that people make to jobs.

    Args:
        participle: The participle for messages, such as "retried".
        states: The states in which a job can be changed.
        usual: The states that a filter without --state selects.
        as_found: Whether a job must be unchanged since it was found; otherwise it only
            has to be in one of `states`.
        keys_apart: Whether each job with a unique key has a transaction of its own.
    """

    participle: str
    states: Sequence[str]
    usual: Sequence[str]
    change: Change
    as_found: bool = True
    keys_apart: bool = False


async def _retry(
    app: chancy.Chancy,
    cursor: AsyncCursor[DictRow],
    jobs: list[DictRow],
    outcome: Outcome,
) -> list[DictRow]:
    """Lets jobs run again, unless another job has their unique key by now."""
    free = []
    for job in jobs:
        if job["state"] == "failed" and job["unique_key"] is not None:
            await cursor.execute(statement(_HOLDER, app.prefix), [job["unique_key"]])
            if other := await cursor.fetchone():
                outcome.left[str(job["id"])] = (
                    f"the job {other['id']} waits or runs with its unique key "
                    f"{job['unique_key']}"
                )
                continue
        free.append(job)
    queues = await app.retry_jobs_ex(cursor, _references(free))
    await cursor.execute(statement(_FORGET_RESCUES, app.prefix), [_ids(free)])
    await app.notify_many(
        cursor, [("queue.pushed", {"q": queue}) for queue in sorted(queues)]
    )
    return free


async def _cancel(
    app: chancy.Chancy,
    cursor: AsyncCursor[DictRow],
    jobs: list[DictRow],
    outcome: Outcome,
) -> list[DictRow]:
    """Fails jobs that are not done, and lets the workers interrupt those that run."""
    for reference in _references(jobs):
        await app.cancel_job_ex(cursor, reference)
    await cursor.execute(
        statement(_SAY_WHY, app.prefix), [f"cancelled by {outcome.by}", _ids(jobs)]
    )
    await app.notify_many(
        cursor, [("job.cancelled", {"j": str(job["id"])}) for job in jobs]
    )
    running = [job["queue"] for job in jobs if job["state"] == "running"]
    if running:
        await cursor.execute(statement(_EXECUTORS, app.prefix), [running])
        executors = {
            row["name"]: EXECUTORS.get(row["executor"], "")
            for row in await cursor.fetchall()
        }
        for queue in running:
            end = _ENDS.get(executors.get(queue, ""), _ENDS_ITSELF)
            outcome.ran[end if app.notifications else _NO_NOTIFICATIONS] += 1
    return jobs


async def _purge(
    app: chancy.Chancy,
    cursor: AsyncCursor[DictRow],
    jobs: list[DictRow],
    _outcome: Outcome,
) -> list[DictRow]:
    await app.purge_jobs_ex(cursor, _references(jobs))
    return jobs


def _ids(jobs: list[DictRow]) -> list[object]:
    return [job["id"] for job in jobs]


def _references(jobs: list[DictRow]) -> list[Reference]:
    return [Reference(job["id"]) for job in jobs]


RETRY = Action(
    participle="retried",
    states=("failed", "retrying"),
    usual=("failed",),
    change=_retry,
    keys_apart=True,
)
CANCEL = Action(
    participle="cancelled",
    states=("pending", "retrying", "running"),
    usual=("pending", "retrying", "running"),
    change=_cancel,
    as_found=False,
)
PURGE = Action(
    participle="purged",
    states=("failed", "succeeded", "pending", "retrying"),
    usual=("failed", "succeeded"),
    change=_purge,
)


def find_changeable(
    action: Action, ids: Sequence[UUID], found: list[DictRow], outcome: Outcome
) -> list[DictRow]:
    """Returns the found jobs that are in a state for an action; the outcome has the others.

    Args:
        ids: The ids that were asked for; the outcome also has those that were not found.
    """
    for id in ids:
        outcome.left[str(id)] = "there is no such job"
    jobs = []
    for job in found:
        if job["state"] in action.states:
            outcome.left.pop(str(job["id"]), None)
            jobs.append(job)
        else:
            outcome.left[str(job["id"])] = f"its state is {job['state']}"
    return jobs


async def act(
    app: chancy.Chancy,
    connection: AsyncConnection[Any],
    action: Action,
    jobs: list[DictRow],
    outcome: Outcome,
) -> None:
    """Changes the jobs that are still in a state for the action."""
    for batch in _batches(jobs, keys_apart=action.keys_apart):
        found = {job["id"]: job for job in batch}
        values = {"ids": [*found], "states": [*action.states]}
        try:
            async with transaction(connection) as cursor:
                await cursor.execute(statement(_LOCK, app.prefix), values)
                locked = [
                    job
                    for job in await cursor.fetchall()
                    if job == found[job["id"]] or not action.as_found
                ]
                changed = await action.change(app, cursor, locked, outcome)
        except UniqueViolation:
            for job in batch:
                outcome.left[str(job["id"])] = (
                    f"a job with its unique key {job['unique_key']} was pushed just now"
                )
            continue
        outcome.done += [str(job["id"]) for job in changed]
        for id in found.keys() - {*_ids(locked)}:
            outcome.left[str(id)] = "it has changed since it was found"


def _batches(jobs: list[DictRow], *, keys_apart: bool) -> Iterator[list[DictRow]]:
    """Yields the jobs in batches, one for each transaction, in the order of their locks.

    Args:
        keys_apart: Whether each job with a unique key is a batch of its own, the newest
            first: of several jobs with one key, only the first can run again.
    """
    together = []
    for job in jobs:
        if keys_apart and job["unique_key"] is not None:
            yield [job]
        else:
            together.append(job)
    together.sort(key=lambda job: (lock_order_key(job["unique_key"]), job["id"].int))
    for start in range(0, len(together), _BATCH):
        yield together[start : start + _BATCH]
