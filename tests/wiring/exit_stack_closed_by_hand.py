import contextlib

from fastapi import FastAPI


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI):
    stack = contextlib.AsyncExitStack()
    stack.callback(record, "last")
    stack.callback(record, "first")
    record("pushed")
    try:
        yield
    finally:
        await stack.aclose()


app = FastAPI(lifespan=lifespan)
