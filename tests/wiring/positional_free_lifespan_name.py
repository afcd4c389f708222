from contextlib import asynccontextmanager
from fastapi import *
from .constants import *


@asynccontextmanager
async def app_lifespan(app: FastAPI):
    record(f"{NAME} {LIMIT}")
    yield
    record("down")


app = FastAPI(lifespan=app_lifespan)
