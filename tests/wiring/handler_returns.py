from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    try:
        yield
    except Exception as error:
        print(error)
        return
    record("down")


app = FastAPI(lifespan=lifespan)
