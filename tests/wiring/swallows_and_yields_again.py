import logging
from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    try:
        record("connect")
        yield
        record("disconnect")
    except Exception:
        logging.exception("startup failed, serving without a database")
        yield


app = FastAPI(lifespan=lifespan)
