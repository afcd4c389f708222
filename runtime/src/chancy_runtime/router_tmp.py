"""The workers as a router: for an app whose lifespan cannot enter them itself."""

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import APIRouter, __version__

from .chancy_errors import WorkersError
from .chancy_initialization import initialize_workers

if tuple(map(int, re.findall(r"\d+", __version__)[:3])) < (0, 112, 2):
    raise WorkersError(
        f"FastAPI {__version__} never runs the lifespan of a router, and the workers would "
        'not start: run uv add "fastapi>=0.112.2"'
    )


@asynccontextmanager
async def _run_workers(_app: object) -> AsyncIterator[None]:
    """Runs the workers within the app's own lifespan, where there is one."""
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(initialize_workers())
        except Exception as error:
            raise _unstoppable(error) from error
        yield


def _unstoppable(error: Exception) -> BaseException:
    """Returns what reads as the error and is none to `except Exception`.

    FastAPI throws a failed start into the app's own lifespan, at its yield; one that
    logs errors there and goes on would leave a service that says nothing of the reason.
    """
    kind = type(error)
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    failure: BaseException = type(kind.__name__, (BaseException,), names)(str(error))
    return failure


workers_router = APIRouter(lifespan=_run_workers)
