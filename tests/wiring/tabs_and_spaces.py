from contextlib import asynccontextmanager

from fastapi import FastAPI


def helper():
    if True:
        return 1


@asynccontextmanager
async def lifespan(app: FastAPI):
	record(f"up {helper()}")
	async with other():
	    yield
	record("down")


@asynccontextmanager
async def other():
    record("other up")
    yield
    record("other down")


app = FastAPI(lifespan=lifespan)
