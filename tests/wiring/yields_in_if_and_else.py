import os
from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    if os.getenv("SCHEDULER_ENABLED", "true") == "true":
        record("scheduler up")
        yield {"scheduler": True}
        record("scheduler down")
    else:
        yield {"scheduler": False}


app = FastAPI(lifespan=lifespan)
