import logging
from contextlib import asynccontextmanager

from fastapi import FastAPI

log = logging.getLogger(__name__)


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    yield
    record("down")


app = FastAPI(lifespan=lifespan)


@app.get("/")
def index():
    return {}
