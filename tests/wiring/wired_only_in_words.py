from contextlib import asynccontextmanager

from fastapi import FastAPI


# TODO: async with initialize_workers(), see .workers.chancy_initialization
@asynccontextmanager
async def lifespan(app: FastAPI):
    """Will call initialize_workers() one day."""
    record("up")
    yield
    record("down")


app = FastAPI(lifespan=lifespan)
