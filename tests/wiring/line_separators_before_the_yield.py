from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    # copied from a web page:     yield    here
    record("up")
    try:
        yield {"note": "one two"}  # 
    finally:
        record("down ")


app = FastAPI(lifespan=lifespan)
