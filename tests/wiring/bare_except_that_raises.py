from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    try:
        yield
    except:
        record("failed")
        raise
    record("down")


app = FastAPI(lifespan=lifespan)
