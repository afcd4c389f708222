from contextlib import asynccontextmanager

from fastapi import FastAPI

app = FastAPI(lifespan=lambda app: lifespan(app))


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    yield