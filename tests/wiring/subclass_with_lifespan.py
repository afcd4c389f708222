from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI


class Application(FastAPI):
    def __init__(self, **kwargs: Any) -> None:
        kwargs.setdefault("title", "Billing")
        super().__init__(**kwargs)


@asynccontextmanager
async def lifespan(app: Application) -> AsyncIterator[None]:
    record("open")
    yield
    record("close")


app = Application(lifespan=lifespan, version="3")
