from contextlib import asynccontextmanager

from fastapi import FastAPI

from .workers import chancy_initialization as ci


@asynccontextmanager
async def lifespan(app: FastAPI):
    async with ci.initialize_workers():
        yield


app = FastAPI(lifespan=lifespan)
