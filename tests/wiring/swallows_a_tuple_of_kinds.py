import asyncio
import logging
from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    try:
        yield
    except (Exception, asyncio.CancelledError) as error:
        logging.error("ended by %r", error)
    record("down")


app = FastAPI(lifespan=lifespan)
