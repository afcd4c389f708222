import os
from contextlib import asynccontextmanager

from fastapi import FastAPI

app = FastAPI()


@app.get("/")
def index():
    return {}


def with_profiler(app: FastAPI) -> None:
    inner = app.router.lifespan_context

    @asynccontextmanager
    async def profiled(app: FastAPI):
        record("profiler up")
        async with inner(app) as state:
            yield state
        record("profiler down")

    app.router.lifespan_context = profiled


if os.environ.get("PROFILE", "1") == "1":
    with_profiler(app)
