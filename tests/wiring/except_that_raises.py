import logging
from contextlib import asynccontextmanager

from fastapi import FastAPI

logger = logging.getLogger(__name__)


@asynccontextmanager
async def lifespan(app: FastAPI):
    try:
        record("bot started")
        yield
    except Exception as e:
        logger.error("bot error: %s", e)
        raise
    finally:
        try:
            record("bot stopped")
        except:
            pass
        logger.info("bot gracefully stopped")


app = FastAPI(lifespan=lifespan)
