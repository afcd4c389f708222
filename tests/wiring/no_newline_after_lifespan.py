from contextlib import asynccontextmanager

from fastapi import FastAPI


def create_app() -> FastAPI:
    return FastAPI(lifespan=lifespan)


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    yield