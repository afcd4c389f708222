"""Routers for a FastAPI app: health, metrics, and the workers themselves.

Needs the extra `fastapi` of chancy-runtime.
"""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import (
    AbstractAsyncContextManager,
    AsyncExitStack,
    asynccontextmanager,
    suppress,
)

from fastapi import APIRouter, HTTPException, Request, Response, __version__

from chancy_runtime.app import Chancy
from chancy_runtime.errors import WorkersError
from chancy_runtime.health import find_problems

__all__ = ["find_problems", "health_router", "metrics_router", "workers_router"]


def health_router(get_chancy: Callable[[], Chancy]) -> APIRouter:
    """Returns the routes for a platform's probes.

    GET /health/live answers 200 as long as the process can answer; it does not query the
    database. GET /health/ready answers 200 when every task of the workers is alive and the
    database takes writes, otherwise 503 with the problems.

    Args:
        get_chancy: Returns the running Chancy, or raises a RuntimeError.
    """
    router = APIRouter(prefix="/health", tags=["health"])

    @router.get("/live")
    async def show_live() -> dict[str, str]:
        """Answers as long as the process can, without querying the database."""
        return {"status": "live"}

    @router.get("/ready")
    async def show_ready(response: Response) -> dict[str, str | list[str]]:
        """Answers 503 with the problems, if there are any."""
        if problems := await find_problems(get_chancy):
            response.status_code = 503
            return {"status": "not ready", "problems": problems}
        return {"status": "ready"}

    return router


def metrics_router(
    *get_chancys: Callable[[], Chancy], with_process: bool = True
) -> APIRouter:
    """Returns the route for Prometheus: GET /metrics.

    It shows what PrometheusPlugin counts in this process, and how many jobs wait in the
    queues. It answers 404 with the reason where a Chancy has no such plugin. A Chancy that
    has not started is left out.

    Args:
        get_chancys: Each returns a running Chancy, or raises a RuntimeError; one for each
            service in the process.
        with_process: Whether the metrics of prometheus_client's default registry are
            shown too: those of the process, and those that jobs define. False in an app
            that shows them elsewhere.

    Raises:
        WorkersError: prometheus_client is not installed.
    """
    try:
        from chancy_runtime.plugins.prometheus import exposition
    except ImportError as error:
        raise WorkersError(
            f"metrics_router() needs prometheus-client ({error}): install "
            "chancy-runtime[prometheus], or remove the route"
        ) from error
    router = APIRouter()

    @router.get("/metrics", include_in_schema=False)
    async def show_metrics(request: Request) -> Response:
        """Answers in the format that Prometheus asks for."""
        chancys = []
        for get_chancy in get_chancys:
            with suppress(RuntimeError):
                chancys.append(get_chancy())
        accepted = request.headers.get("accept", "")
        try:
            text, content_type = await exposition(
                chancys, accepted, with_process=with_process
            )
        except WorkersError as error:
            raise HTTPException(404, str(error)) from error
        return Response(text, headers={"content-type": content_type})

    return router


def workers_router(
    initialize_workers: Callable[[], AbstractAsyncContextManager[None]],
) -> APIRouter:
    """Returns the workers as a router, for an app whose lifespan cannot enter them.

    FastAPI runs the lifespan of an included router within the app's own, so that the
    workers start last and stop first.

    Args:
        initialize_workers: Runs the workers while it is entered.

    Raises:
        WorkersError: FastAPI is older than 0.112.2, which ignores lifespans of routers.
    """
    if tuple(map(int, re.findall(r"\d+", __version__)[:3])) < (0, 112, 2):
        raise WorkersError(
            f"FastAPI {__version__} never runs the lifespan of a router, and the workers "
            'would not start: run uv add "fastapi>=0.112.2"'
        )

    @asynccontextmanager
    async def run_workers(_app: object) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(initialize_workers())
            except Exception as error:
                raise _not_to_be_caught(error) from error
            yield

    return APIRouter(lifespan=run_workers)


def _not_to_be_caught(error: Exception) -> BaseException:
    """Returns an error that reads like `error` and that `except Exception` does not catch.

    FastAPI throws a failed start into the app's own lifespan, at its yield. If that lifespan
    logs errors and goes on, the service would run without workers.
    """
    kind = type(error)
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__}
    failure: BaseException = type(kind.__name__, (BaseException,), names)(str(error))
    return failure
