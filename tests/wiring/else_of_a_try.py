from contextlib import asynccontextmanager

from fastapi import FastAPI


async def connect() -> str:
    record("connect")
    return "connection"


@asynccontextmanager
async def lifespan(app: FastAPI):
    try:
        connection = await connect()
    except OSError as error:
        raise RuntimeError("the database is not there") from error
    else:
        app.state.connection = connection
        yield
        record("disconnect")


app = FastAPI(lifespan=lifespan)
