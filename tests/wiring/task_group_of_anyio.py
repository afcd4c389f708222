from contextlib import asynccontextmanager

import anyio
from fastapi import FastAPI


async def tick() -> None:
    try:
        await anyio.sleep_forever()
    finally:
        record("ticker ended")


@asynccontextmanager
async def lifespan(app: FastAPI):
    async with anyio.create_task_group() as group:
        group.start_soon(tick)
        await anyio.sleep(0)
        record("ticker started")
        yield
        group.cancel_scope.cancel()


app = FastAPI(lifespan=lifespan)
