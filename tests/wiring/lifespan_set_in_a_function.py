from contextlib import asynccontextmanager

from fastapi import FastAPI

app = FastAPI()


def setup_monitoring(app: FastAPI) -> None:
    original = app.router.lifespan_context

    @asynccontextmanager
    async def monitored(app: FastAPI):
        async with original(app) as state:
            record("monitoring up")
            yield state
            record("monitoring down")

    app.router.lifespan_context = monitored


@app.on_event("startup")
async def startup():
    record("startup")


setup_monitoring(app)
