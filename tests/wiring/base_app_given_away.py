import asyncio
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI

from . import bots


async def refresh() -> None:
    while True:
        await asyncio.sleep(300)


@asynccontextmanager
async def _lifespan(_app: FastAPI):
    task = None if _app.debug else asyncio.create_task(refresh())
    record("task made")
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        record("task ended")


base_app = FastAPI(lifespan=_lifespan)
app: FastAPI = bots.make_app("bot", app=base_app)


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"bot": app.state.bot}
