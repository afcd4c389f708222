from contextlib import asynccontextmanager

from fastapi import FastAPI

client = None


@asynccontextmanager
async def lifespan(app: FastAPI):
    global client
    client = object()
    record("client")

    # ------------------------------------------------------------------
    # Everything above runs before the first request,
    # everything below after the last one.
    # ------------------------------------------------------------------
    yield  # noqa: hands over to FastAPI

    # the client goes last
    client = None
    record("no client")


app = FastAPI(lifespan=lifespan)
