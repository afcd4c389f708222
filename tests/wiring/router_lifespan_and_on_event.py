from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI


@asynccontextmanager
async def cache_lifespan(app):
    record("cache up")
    try:
        yield
    finally:
        record("cache down")


cache = APIRouter(lifespan=cache_lifespan)
app = FastAPI()
app.include_router(cache)


@app.on_event("startup")
async def startup():
    record("startup")


@app.on_event("shutdown")
async def shutdown():
    record("shutdown")
