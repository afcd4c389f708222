import logging
import sys

from fastapi import FastAPI
from loguru import logger


class InterceptHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        logger.opt(exception=record.exc_info).log(
            record.levelname, record.getMessage()
        )


logger.remove()
logger.add(sys.stderr, level="INFO", serialize=True)
logging.basicConfig(handlers=[InterceptHandler()], level=logging.INFO, force=True)

app = FastAPI(title="Billing")


@app.on_event("startup")
async def startup() -> None:
    record("up")
    logger.info("billing is up")


@app.on_event("shutdown")
async def shutdown() -> None:
    logger.info("billing goes down")
    record("down")
