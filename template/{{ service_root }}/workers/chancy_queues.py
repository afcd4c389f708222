"""Keeps the queues in the database equal to the list in chancy_initialization.py."""

from collections.abc import Iterable
from dataclasses import replace

from chancy import Chancy, Queue


async def declare_queues(chancy: Chancy, queues: Iterable[Queue]) -> None:
    """Declares the queues that are new or changed; an operator's pause stays.

    Queues that are in the database only are left alone, they may hold jobs.
    """
    found = {queue.name: queue for queue in await chancy.get_all_queues()}
    for queue in queues:
        if present := found.get(queue.name):
            queue = replace(queue, state=present.state, resume_at=present.resume_at)
        if queue != present:
            await chancy.declare(queue, upsert=True)
