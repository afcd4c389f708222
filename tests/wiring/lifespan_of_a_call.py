from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI


def make_lifespan(name: str) -> Callable[[FastAPI], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(app: FastAPI):
        record(f"{name} up")
        yield
        record(f"{name} down")

    return lifespan


app = FastAPI(title="Billing", lifespan=make_lifespan("billing"))


@app.get("/")
def index() -> str:
    return "billing"
