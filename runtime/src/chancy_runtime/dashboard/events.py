"""Live events of a Worker, without the parts that could repeat an argument of a job."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from chancy import Queue
from chancy.hub import Event, Hub

# The events of Chancy and its plugins, with the parts that are shown. The team's own events
# are not shown: their parts may be anything.
_PARTS = {
    "job.cancelled": ("j",),
    "job.recovered": ("j", "c"),
    "leadership.gained": ("worker_id",),
    "leadership.lost": ("worker_id",),
    "leadership.renewed": ("worker_id",),
    "pruner.removed": ("elapsed", "rows_removed"),
    "queue.declared": ("q",),
    "queue.paused": ("q",),
    "queue.pushed": ("q",),
    "queue.resumed": ("q",),
    "recovery.recovered": ("elapsed", "rows_recovered"),
    "worker.announced": ("worker_id",),
    "worker.queue.full": ("queue",),
    "worker.queue.removed": ("queue",),
    "worker.queue.started": ("queue",),
    "worker.queue.updated": ("queue",),
    "worker.shutdown_timeout": (),
    "worker.started": (),
    "worker.stopped": (),
    "workflow.created": ("id",),
    "workflow.step_completed": ("workflow_id",),
    "workflow.updated": ("id",),
}
_MOST_WAITING = 256


def text_of(event: Event) -> str | None:
    """Returns an event in the format of Chancy's page; None if it is not shown."""
    if (parts := _PARTS.get(event.name)) is None:
        return None
    body = {name: _plain(event.body[name]) for name in parts if name in event.body}
    return json.dumps({"event": event.name, "data": body})


def _plain(value: Any) -> str | int | float | None:
    if isinstance(value, Queue):
        return value.name
    return value if isinstance(value, str | int | float) else None


@asynccontextmanager
async def heard(hub: Hub) -> AsyncIterator["asyncio.Queue[str]"]:
    """Yields the queue of the shown events; a slow reader misses some."""
    texts: asyncio.Queue[str] = asyncio.Queue(_MOST_WAITING)

    async def hear(event: Event) -> None:
        text = text_of(event)
        if text is not None and not texts.full():
            texts.put_nowait(text)

    hub.on_any(hear)
    try:
        yield texts
    finally:
        hub.remove_on_any(hear)
