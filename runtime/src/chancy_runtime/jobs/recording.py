"""Records pushed jobs in a test, instead of sending them to a database."""

import json
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import replace

from chancy import Job, Reference
from chancy.utils import chancy_uuid, chunked
from psycopg import AsyncCursor, Cursor

from chancy_runtime.errors import WorkersError
from chancy_runtime.jobs import pushes
from chancy_runtime.modes import VARIABLE

# The jobs that all services of this process push; None if no test records them.
_pushed: list[Job] | None = None


def is_on() -> bool:
    """Whether a test records pushed jobs."""
    return _pushed is not None


def off() -> WorkersError:
    """Returns the error for a use of the database while WORKERS_MODE is off."""
    return WorkersError(
        f"{VARIABLE} is off, so no database is used: set it to run or push, or let the "
        "test record pushed jobs with the fixture pushed of chancy_runtime.testing"
    )


def record(jobs: Sequence[pushes.AnyJob], cursor: object = None) -> list[Reference]:
    """Records jobs with the arguments that a worker would call them with.

    Args:
        cursor: The cursor of the push; a test without a database may pass a fake one.

    Raises:
        WorkersError: No test records pushed jobs.
        TypeError: An argument cannot be written as JSON, so no push could send it.
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
    """Records jobs in batches, each batch when the caller asks for it."""
    for batch in chunked(jobs, size):
        yield record(batch)
