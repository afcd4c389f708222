import contextlib

from fastapi import FastAPI


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    with contextlib.suppress(BaseException):
        yield
    record("down")


app = FastAPI(lifespan=lifespan)
