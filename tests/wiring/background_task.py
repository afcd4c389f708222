import asyncio
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI


async def refresh_rates() -> None:
    while True:
        await asyncio.sleep(300)


@asynccontextmanager
async def lifespan(app: FastAPI):
    task = asyncio.create_task(refresh_rates())
    record("task made")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        record(f"task cancelled: {task.cancelled()}")


app = FastAPI(lifespan=lifespan)
