from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    try: yield
    finally: record("down")


app = FastAPI(lifespan=lifespan)
