import logging
from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    try:
        yield
    except Exception:
        logging.exception("ended")
        if app.debug:
            raise
    record("down")


app = FastAPI(lifespan=lifespan)
