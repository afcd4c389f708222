from contextlib import asynccontextmanager

from fastapi import FastAPI


async def connect() -> str:
    record("connect")
    return "connection"


@asynccontextmanager
async def lifespan(app: FastAPI):
    yield {"connection": await connect()}
    record("disconnect")


app = FastAPI(lifespan=lifespan)
