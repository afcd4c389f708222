import os
from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("gpu taken")
    yield
    record("gpu given back")
    # a thread of the driver never ends
    os._exit(0)


app = FastAPI(lifespan=lifespan)
