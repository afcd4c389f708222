from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI


class App(FastAPI):
    def __init__(self) -> None:
        super().__init__(title="Billing", lifespan=self._run)

    @asynccontextmanager
    async def _run(self, _app: FastAPI) -> AsyncIterator[None]:
        record("up")
        try:
            yield
        finally:
            record("down")


app = App()
