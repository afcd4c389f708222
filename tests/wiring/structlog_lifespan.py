import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from fastapi import FastAPI
from structlog.stdlib import ProcessorFormatter

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def setup_logging() -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(
        ProcessorFormatter(processor=structlog.dev.ConsoleRenderer(colors=False))
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.INFO)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    setup_logging()
    log.info("billing starts", version=app.version)
    record("logging")
    yield
    log.info("billing stops")
    record("stopped")


app = FastAPI(lifespan=lifespan, version="7.1")
