import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

log = logging.getLogger("billing.startup")
attempts = 0


async def ping() -> None:
    global attempts
    attempts += 1
    if attempts < 3:
        raise ConnectionError("not yet")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    for delay in (0.0, 0.0, 0.0, 0.0):
        try:
            await ping()
        except ConnectionError as error:
            log.info("waiting for the database: %s", error)
            await asyncio.sleep(delay)
        else:
            break
    else:
        raise RuntimeError("the database does not answer")
    record(f"after {attempts} attempts")
    yield
    record("down")


app = FastAPI(lifespan=lifespan)
