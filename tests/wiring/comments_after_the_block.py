from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    try:
        yield
        # deeper: still in the try
    # at the level of the try
    finally:
        record("down")
# at the margin
    # and back in

app = FastAPI(lifespan=lifespan)
