import logging
from contextlib import asynccontextmanager

from fastapi import FastAPI

logger = logging.getLogger(__name__)


class Cache:
    async def connect(self) -> None:
        record("cache")


@asynccontextmanager
async def lifespan(app: FastAPI):
    cache = Cache()
    try:
        await cache.connect()
        app.state.cache = cache
    except Exception:
        logger.exception("no cache")
        app.state.cache = None
        yield
        return
    yield
    record("cache closed")


app = FastAPI(lifespan=lifespan)
