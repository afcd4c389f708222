from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI


@dataclass(frozen=True)
class Settings:
    title: str = "Billing"
    debug: bool = False


def create_app(settings: Settings | None = None) -> FastAPI:
    settings = settings or Settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.settings = settings
        record(f"{settings.title} up")
        yield
        record(f"{settings.title} down")

    app = FastAPI(title=settings.title, lifespan=lifespan)

    @app.get("/settings")
    async def show() -> Settings:
        return settings

    return app
