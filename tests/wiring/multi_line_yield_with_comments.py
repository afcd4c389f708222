from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    # what the routes may use
    yield dict(  # a state
  # unindented on purpose
        limit=3,

        names=[
            "a",  # first
            "b",
        ]
)  # closed here
    record("down")


app = FastAPI(lifespan=lifespan)
