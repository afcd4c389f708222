from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    for attempt in range(3):
        record(f"attempt {attempt}")
        if attempt == 1:
            yield
            record("done")
            break


app = FastAPI(lifespan=lifespan)
