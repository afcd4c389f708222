import logging
import uuid

import structlog
from fastapi import FastAPI, Request, Response

structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso"),
        structlog.processors.JSONRenderer(),
    ],
    wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
)
logger = structlog.get_logger()

app = FastAPI(title="billing")


@app.middleware("http")
async def bind_request_id(request: Request, call_next) -> Response:
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=str(uuid.uuid4()))
    return await call_next(request)


@app.on_event("startup")
async def startup() -> None:
    logger.info("startup")
    record("startup")
