import logging
from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    try:
        yield
    except* Exception as group:
        logging.error("ended by %r", group.exceptions)
    record("down")


app = FastAPI(lifespan=lifespan)
