from contextlib import asynccontextmanager

from fastapi import FastAPI


class Lifecycle:
    def __init__(self, with_cache: bool) -> None:
        self.with_cache = with_cache

    @asynccontextmanager
    async def lifespan(self, app: FastAPI):
        if self.with_cache:
            record("cache up")
            yield
            record("cache down")
        else:
            record("no cache")
            yield


lifecycle = Lifecycle(with_cache=True)
app = FastAPI(lifespan=lifecycle.lifespan)
