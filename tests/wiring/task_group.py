import asyncio
from contextlib import asynccontextmanager

from fastapi import FastAPI


async def listen(stop: asyncio.Event) -> None:
    await stop.wait()
    record("listener ended")


@asynccontextmanager
async def lifespan(app: FastAPI):
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(listen(stop))
        record("listener made")
        yield
        stop.set()


app = FastAPI(lifespan=lifespan)
