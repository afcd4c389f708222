"""Keeps the queues in the database equal to the service's list."""

from collections.abc import Iterable
from dataclasses import replace

from chancy import Queue
from psycopg import AsyncCursor, sql
from psycopg.rows import DictRow

from chancy_runtime.app import Chancy
from chancy_runtime.modes import Mode
from chancy_runtime.queues.rows import readable_queues


async def declare_queues(chancy: Chancy, queues: Iterable[Queue]) -> None:
    """Declares the queues that are new or changed; an operator's pause stays.

    Chancy's own `declare` ignores changed settings, and with `upsert` ends a pause.
    Queues that only the database has are left alone; the log names those that hold jobs.
    Nothing is written if a later deployment has started, or in a process that only pushes.

    Raises:
        WorkersError: The database does not answer, or refuses.
    """
    if chancy.mode is not Mode.RUN:
        return
    queues = list(queues)
    chancy.registered.add_executors(queue.executor for queue in queues)
    async with chancy.step_of_start(), chancy.deployment.owning() as cursor:
        if cursor is None:
            return
        names = await _locked(chancy, cursor)
        found, _errors = await readable_queues(chancy, cursor)
        present_queues = {queue.name: queue for queue in found}
        for queue in sorted(queues, key=lambda queue: queue.name):
            names.discard(queue.name)
            if present := present_queues.get(queue.name):
                queue = replace(queue, state=present.state, resume_at=present.resume_at)
            if queue != present:
                await chancy.declare_ex(cursor, queue, upsert=True)
                await chancy.notify(cursor, "queue.declared", {"q": queue.name})
        await _name_abandoned(chancy, cursor, sorted(names))


async def _locked(chancy: Chancy, cursor: AsyncCursor[DictRow]) -> set[str]:
    """Returns the names of the queues; nobody can pause one until the transaction ends."""
    table = sql.Identifier(f"{chancy.prefix}queues")
    await cursor.execute(
        sql.SQL("SELECT name FROM {} ORDER BY name FOR UPDATE").format(table)
    )
    return {row["name"] for row in await cursor.fetchall()}


async def _name_abandoned(
    chancy: Chancy, cursor: AsyncCursor[DictRow], names: list[str]
) -> None:
    table = sql.Identifier(f"{chancy.prefix}jobs")
    await cursor.execute(
        sql.SQL(
            "SELECT queue, count(*) AS jobs FROM {} WHERE queue = ANY(%s) "
            "AND state NOT IN ('succeeded', 'failed') GROUP BY queue ORDER BY queue"
        ).format(table),
        [names],
    )
    for row in await cursor.fetchall():
        chancy.log.warning(
            "the queue %s is no longer declared and holds %s jobs: workers go on taking "
            "them; when it is empty, remove it with chancy.delete_queue(%r)",
            *(row["queue"], row["jobs"], row["queue"]),
        )
