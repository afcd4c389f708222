from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from fastapi import FastAPI

executor: ThreadPoolExecutor | None = None


def initialize_workers(count: int) -> None:
    """Starts the threads that render PDFs."""
    global executor
    executor = ThreadPoolExecutor(count)
    record(f"{count} threads")


@asynccontextmanager
async def lifespan(app: FastAPI):
    initialize_workers(2)
    yield
    executor.shutdown()
    record("no threads")


app = FastAPI(lifespan=lifespan)
