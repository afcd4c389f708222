from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    initialize_workers = 2
    record(f"{initialize_workers} workers")
    yield
    record("down")


app = FastAPI(lifespan=lifespan)
