import os
from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    if os.getenv("DRY_RUN"):
        yield ["dry"]
    else:
        record("up")
        yield ["wet"]
        record("down")


app = FastAPI(lifespan=lifespan)
