import logging
from contextlib import asynccontextmanager

from fastapi import FastAPI


class Guard:
    async def __aenter__(self) -> "Guard":
        record("guarded")
        return self

    async def __aexit__(self, kind, error, traceback) -> bool:
        if error:
            logging.error("swallowed %r", error)
        return True


@asynccontextmanager
async def lifespan(app: FastAPI):
    async with Guard():
        yield


app = FastAPI(lifespan=lifespan)
