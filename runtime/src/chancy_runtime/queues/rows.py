"""The rows of the queues: reading them, checking them, ending a pause."""

import re

from chancy import Chancy, Queue
from psycopg import AsyncCursor, sql
from psycopg.rows import DictRow, dict_row

from chancy_runtime.errors import WorkersError
from chancy_runtime.jobs.rows import UNREADABLE


async def resume_when_due(app: Chancy, name: str) -> None:
    """Ends the pause of a queue if it is over on the server's clock.

    Chancy 0.26 uses the worker's clock, and also ends a newer pause.
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


def check_numbers(queue: Queue) -> None:
    """Makes sure that the numbers of a queue let jobs run.

    Raises:
        WorkersError: Its concurrency or its rate limit lets no job run.
    """
    if queue.concurrency is not None and queue.concurrency < 1:
        raise WorkersError(
            f"the queue {queue.name} has the concurrency {queue.concurrency}: declare it "
            "with 1 or more, or pause it"
        )
    if queue.rate_limit is not None and not (
        queue.rate_limit > 0 and (queue.rate_limit_window or 0) > 0
    ):
        raise WorkersError(
            f"the queue {queue.name} has the rate_limit {queue.rate_limit} and the "
            f"rate_limit_window {queue.rate_limit_window}: declare it with both, each 1 "
            "or more, or with neither"
        )


def check_tags(queue: Queue) -> None:
    """Makes sure that a queue's tags are regular expressions.

    Raises:
        ValueError: One of them is not.
    """
    for tag in queue.tags:
        try:
            re.compile(tag)
        except re.error as error:
            raise ValueError(f"its tag {tag!r} is not a pattern: {error}") from None


async def readable_queues(
    chancy: Chancy, cursor: AsyncCursor[DictRow] | None = None
) -> tuple[list[Queue], dict[str, BaseException]]:
    """Returns the queues whose rows can be read, and the errors of the others by name."""
    if cursor is None:
        async with (
            chancy.pool.connection() as connection,
            connection.cursor(row_factory=dict_row) as own,
        ):
            return await readable_queues(chancy, own)
    table = sql.Identifier(f"{chancy.prefix}queues")
    await cursor.execute(sql.SQL("SELECT name FROM {} ORDER BY name").format(table))
    queues: list[Queue] = []
    errors: dict[str, BaseException] = {}
    for name in [row["name"] for row in await cursor.fetchall()]:
        await cursor.execute(
            sql.SQL("SELECT * FROM {} WHERE name = %s").format(table), [name]
        )
        try:
            if row := await cursor.fetchone():
                check_tags(queue := Queue.unpack(row))
                queues.append(queue)
        except UNREADABLE as error:
            errors[name] = error
    return queues, errors
