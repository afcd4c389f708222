"""Keeps the queues in the database equal to the list in chancy_initialization.py."""

from collections.abc import Iterable
from dataclasses import replace

from chancy import Chancy, Queue
from psycopg import AsyncCursor, sql
from psycopg.rows import DictRow, dict_row

from .chancy_deployment import deployment


async def declare_queues(chancy: Chancy, queues: Iterable[Queue]) -> None:
    """Declares the queues that are new or changed; an operator's pause stays.

    Queues that are in the database only are left alone; one that holds jobs is named.
    """
    async with deployment(chancy) as cursor:
        if cursor is None:
            return
        found = await _locked(chancy, cursor)
        for queue in sorted(queues, key=lambda queue: queue.name):
            if present := found.pop(queue.name, None):
                queue = replace(queue, state=present.state, resume_at=present.resume_at)
            if queue != present:
                await chancy.declare_ex(cursor, queue, upsert=True)
                await chancy.notify(cursor, "queue.declared", {"q": queue.name})
        await _name_abandoned(chancy, cursor, list(found))


async def resume_when_due(app: Chancy, name: str) -> None:
    """Ends a queue's pause whose end has come, by the clock of the server.

    Chancy 0.26 asks the worker's clock, and ends a pause that was made anew meanwhile.
    """
    query = sql.SQL(
        "UPDATE {} SET state = 'active', resume_at = NULL "
        "WHERE name = %s AND state = 'paused' AND resume_at <= NOW()"
    )
    async with (
        app.pool.connection() as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        await cursor.execute(
            query.format(sql.Identifier(f"{app.prefix}queues")), [name]
        )
        if cursor.rowcount:
            await app.notify(cursor, "queue.resumed", {"q": name})


async def _locked(chancy: Chancy, cursor: AsyncCursor[DictRow]) -> dict[str, Queue]:
    """The queues in the database, which no operator can pause until the transaction ends."""
    table = sql.Identifier(f"{chancy.prefix}queues")
    await cursor.execute(
        sql.SQL("SELECT * FROM {} ORDER BY name FOR UPDATE").format(table)
    )
    return {row["name"]: Queue.unpack(row) for row in await cursor.fetchall()}


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
