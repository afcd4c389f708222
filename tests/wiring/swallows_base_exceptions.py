import logging
from contextlib import asynccontextmanager

from fastapi import FastAPI

logger = logging.getLogger(__name__)


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    try:
        yield
    except BaseException as error:
        logger.critical("down: %r", error)
    finally:
        record("down")


app = FastAPI(lifespan=lifespan)
