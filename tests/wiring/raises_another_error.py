from contextlib import asynccontextmanager

from fastapi import FastAPI


class StartupError(RuntimeError):
    pass


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    try:
        yield
    except Exception as error:
        raise StartupError("billing ended") from error
    finally:
        record("down")


app = FastAPI(lifespan=lifespan)
