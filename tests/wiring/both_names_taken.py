from contextlib import asynccontextmanager

from fastapi import FastAPI


def initialize_workers() -> None:
    record("threads")


@asynccontextmanager
async def initialize_billing_workers():
    record("processes up")
    yield
    record("processes down")


@asynccontextmanager
async def lifespan(app: FastAPI):
    initialize_workers()
    async with initialize_billing_workers():
        yield


app = FastAPI(lifespan=lifespan)
