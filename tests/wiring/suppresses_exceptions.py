from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    with suppress(Exception):
        yield
    record("down")


app = FastAPI(lifespan=lifespan)
