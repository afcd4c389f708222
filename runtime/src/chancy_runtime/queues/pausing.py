"""Pausing and resuming queues by hand."""

from datetime import datetime
from typing import LiteralString

import chancy
from psycopg import AsyncCursor
from psycopg.rows import DictRow

from chancy_runtime.errors import WorkersError
from chancy_runtime.jobs.rows import statement
from chancy_runtime.postgres.target import target_of

# In the order of declare_queues(), which may run at the same time.
_LOCK: LiteralString = (
    "SELECT name FROM {queues} WHERE name = ANY(%s) ORDER BY name FOR UPDATE"
)
_NAMES: LiteralString = "SELECT name FROM {queues} ORDER BY name LIMIT 21"


async def pause(
    app: chancy.Chancy,
    cursor: AsyncCursor[DictRow],
    names: list[str],
    *,
    until: datetime | None = None,
) -> None:
    """Pauses queues, all of them or none.

    Raises:
        WorkersError: One of them does not exist; no queue is changed.
    """
    await _lock(app, cursor, names)
    for name in names:
        await app.pause_queue_ex(cursor, name, resume_at=until)
        await app.notify(cursor, "queue.paused", {"q": name})


async def resume(
    app: chancy.Chancy, cursor: AsyncCursor[DictRow], names: list[str]
) -> None:
    """Resumes queues, all of them or none.

    Raises:
        WorkersError: One of them does not exist; no queue is changed.
    """
    await _lock(app, cursor, names)
    for name in names:
        await app.resume_queue_ex(cursor, name)
        await app.notify(cursor, "queue.resumed", {"q": name})


async def _lock(
    app: chancy.Chancy, cursor: AsyncCursor[DictRow], names: list[str]
) -> None:
    """Locks the rows of queues.

    Raises:
        WorkersError: One of them does not exist; no queue is changed.
    """
    await cursor.execute(statement(_LOCK, app.prefix), [names])
    missing = {*names} - {row["name"] for row in await cursor.fetchall()}
    if not missing:
        return
    await cursor.execute(statement(_NAMES, app.prefix))
    known = [str(row["name"]) for row in await cursor.fetchall()]
    if len(known) > 20:
        known[20] = "…"
    raise WorkersError(
        f"there is no queue {' and no queue '.join(sorted(missing))} of {app.prefix}* at "
        f"{target_of(app.dsn)}, and nothing was changed: the queues are "
        f"{', '.join(known) or 'declared at the first start'}"
    )
