import os
from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    match os.environ.get("REGION", "eu").split("-"):
        case ["eu", *_]:
            record("eu")
            yield
            record("left eu")
        case other:
            raise ValueError(f"no such region: {other}")


app = FastAPI(lifespan=lifespan)
