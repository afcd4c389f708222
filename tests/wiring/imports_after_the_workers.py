from contextlib import asynccontextmanager

from fastapi import FastAPI

from .api import ROUTES
from .zones import ZONES


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    yield {"zones": ZONES, "routes": ROUTES}
    record("down")


app = FastAPI(lifespan=lifespan)
