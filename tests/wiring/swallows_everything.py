from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    try:
        yield
    except:
        print("something went wrong")
    record("down")


app = FastAPI(lifespan=lifespan)
