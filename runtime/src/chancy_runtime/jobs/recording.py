"""Records what is pushed in a test, instead of sending it to a database."""

import json
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import replace

from chancy import Job, Reference
from chancy.utils import chancy_uuid, chunked
from psycopg import AsyncCursor, Cursor

from chancy_runtime.errors import WorkersError
from chancy_runtime.jobs import pushes
from chancy_runtime.modes import VARIABLE

# What this process pushes, whichever service does; None where no test wants to know.
_pushed: list[Job] | None = None


def is_on() -> bool:
    """Whether a test records what is pushed."""
    return _pushed is not None


def off() -> WorkersError:
    """Returns the error of a process whose workers are off and that needs their database."""
    return WorkersError(
        f"{VARIABLE} is off and no database is used: set it to run or push, or let the "
        "test record what is pushed with the fixture pushed of chancy_runtime.testing"
    )


def record(jobs: Sequence[pushes.AnyJob], cursor: object = None) -> list[Reference]:
    """Records jobs with the arguments that a worker would call them with.

    Args:
        cursor: The one of the push; a test without a database may have a fake one.

    Raises:
        WorkersError: No test records.
        TypeError: An argument cannot be written as JSON, and no push could send it.
    """
    if _pushed is None:
        raise off()
    context = cursor if isinstance(cursor, AsyncCursor | Cursor) else None
    to_json = pushes.to_json_in(context)
    found = [
        replace(
            job,
            kwargs=json.loads(to_json(job.kwargs or {})),
            meta=json.loads(to_json(job.meta)),
        )
        for job in pushes.plain(jobs)
    ]
    _pushed.extend(found)
    return [Reference(chancy_uuid()) for _ in found]


async def record_many(
    jobs: Iterable[pushes.AnyJob], size: int
) -> AsyncGenerator[list[Reference]]:
    """Records jobs in batches, each when it is asked for."""
    for batch in chunked(jobs, size):
        yield record(batch)
