import os
from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    yield
    record("down")


if os.environ.get("ENVIRONMENT") == "production":
    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None)
else:
    app = FastAPI(lifespan=lifespan)


@app.get("/")
def index():
    return {}
