import logging
from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def resource(name):
    record(f"{name} up")
    try:
        yield
    finally:
        record(f"{name} down")


@asynccontextmanager
async def lifespan(app: FastAPI):
    try:
        async with resource("db"):
            try:
                async with resource("cache"):
                    yield
            finally:
                record("flushed")
    except Exception:
        logging.exception("lifespan failed")


app = FastAPI(lifespan=lifespan)
