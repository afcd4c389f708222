import os
from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    if os.environ.get("BILLING_DISABLED") != "1":
        record("enabled")
        yield
        record("disabled")
    else:
        raise RuntimeError("billing is disabled")


app = FastAPI(lifespan=lifespan)
