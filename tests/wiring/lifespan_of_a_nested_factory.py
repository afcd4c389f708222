from collections.abc import Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI


def configured(region: str) -> Callable[[], FastAPI]:
    def create() -> FastAPI:
        @asynccontextmanager
        async def lifespan(app: FastAPI):
            record(f"up in {region}")
            try:
                yield {"region": region}
            finally:
                record(f"down in {region}")

        return FastAPI(lifespan=lifespan)

    return create


factory = configured("eu")
