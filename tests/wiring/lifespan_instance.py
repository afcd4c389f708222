from contextlib import asynccontextmanager

from fastapi import FastAPI


class Lifespan:
    def __init__(self) -> None:
        self.started = 0

    @asynccontextmanager
    async def __call__(self, app: FastAPI):
        self.started += 1
        record(f"start {self.started}")
        yield
        record("stop")


app = FastAPI(lifespan=Lifespan())
