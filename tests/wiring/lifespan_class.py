from __future__ import annotations

from typing import Any

from fastapi import FastAPI


class Lifespan:
    __slots__ = ("app",)

    def __init__(self, app: FastAPI) -> None:
        self.app = app

    async def __aenter__(self) -> dict[str, Any]:
        record("entered")
        return {"usecases": ["invoice", "refund"]}

    async def __aexit__(self, *exc_info: object) -> None:
        record("left")


app = FastAPI(title="Billing", lifespan=Lifespan)
