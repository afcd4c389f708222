from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def connection(name: str) -> AsyncIterator[str]:
    record(f"+{name}")
    try:
        yield name
    finally:
        record(f"-{name}")


async def flush() -> None:
    record("flush")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        app.state.db = await stack.enter_async_context(connection("db"))
        stack.push_async_callback(flush)
        app.state.cache = await stack.enter_async_context(connection("cache"))
        yield


app = FastAPI(lifespan=lifespan)
