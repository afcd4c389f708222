from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(_app: FastAPI):
    record("init db")
    # hand over to FastAPI
    yield

    # clean up when the application closes
    record("close db")


def make_app():
    return FastAPI(
        title="billing",
        debug=False,
        lifespan=lifespan,
        redoc_url=None,
    )
