import sys
from contextlib import asynccontextmanager

from fastapi import FastAPI
from loguru import logger

logger.remove()
logger.add(sys.stderr, format="{time} | {level} | {message}", enqueue=False)


@asynccontextmanager
async def lifespan(app: FastAPI):
    try:
        record("connect")
        raise OSError("no broker")
    except Exception as e:
        logger.warning(f"⚠️ going on without a broker: {e}")
    logger.info("🚀 ready")
    yield
    logger.info("👋 bye")
    record("bye")


app = FastAPI(lifespan=lifespan)
