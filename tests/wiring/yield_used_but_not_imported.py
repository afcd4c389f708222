from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    async with initialize_workers():
        yield
    record("down")


app = FastAPI(lifespan=lifespan)
