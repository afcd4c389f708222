from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI


def combine_lifespans(*lifespans):
    """Enters each lifespan in order, leaves them in reverse."""

    @asynccontextmanager
    async def combined(app):
        async with AsyncExitStack() as stack:
            for each in lifespans:
                await stack.enter_async_context(each(app))
            yield

    return combined


@asynccontextmanager
async def database_lifespan(app: FastAPI):
    record("db up")
    yield
    record("db down")


@asynccontextmanager
async def mcp_lifespan(app: FastAPI):
    record("mcp up")
    yield
    record("mcp down")


app = FastAPI(lifespan=combine_lifespans(database_lifespan, mcp_lifespan))
