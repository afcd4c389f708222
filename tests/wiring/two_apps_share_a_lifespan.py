from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    record(f"{app.title} up")
    yield
    record(f"{app.title} down")


public = FastAPI(title="public", lifespan=lifespan)
internal = FastAPI(title="internal", lifespan=lifespan)
