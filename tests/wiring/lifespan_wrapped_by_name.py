from contextlib import asynccontextmanager

from fastapi import FastAPI


async def _lifespan(app: FastAPI):
    record("up")
    yield
    record("down")


lifespan = asynccontextmanager(_lifespan)

app = FastAPI(lifespan=lifespan)
