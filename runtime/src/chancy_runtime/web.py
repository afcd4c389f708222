"""Routes for the platform's probes: is the process up, do its workers work?"""

import time

from fastapi import APIRouter, Response

from .chancy_instance import get_chancy

_PROBE_TIMEOUT = 5

health_router = APIRouter(prefix="/health", tags=["health"])


@health_router.get("/live")
async def show_live() -> dict[str, str]:
    """Answers as long as the process can; the database is not asked."""
    return {"status": "live"}


@health_router.get("/ready")
async def show_ready(response: Response) -> dict[str, str | list[str]]:
    """Answers 200 when every task of the workers is alive and the database takes writes,
    and otherwise 503 with the names of what does not work."""
    if problems := await find_problems():
        response.status_code = 503
        return {"status": "not ready", "problems": problems}
    return {"status": "ready"}


async def find_problems() -> list[str]:
    """Names what does not work, in words that an outsider may read."""
    try:
        chancy = get_chancy()
    except RuntimeError:
        return ["the workers have not started"]
    problems = [f"{task} is down" for task in sorted(chancy.monitor.failing)]
    if not chancy.workers:
        problems.append("the workers have not started")
    for worker in chancy.workers:
        if time.monotonic() - worker.last_heartbeat > worker.heartbeat_timeout / 2:
            problems.append("the last heartbeat is old")
    if not await chancy.is_writable(timeout=_PROBE_TIMEOUT):
        problems.append("the database does not take writes")
    return problems
