from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from fastapi import APIRouter, FastAPI

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger("billing")
api = APIRouter(prefix="/api")


@api.get("/plans")
async def plans() -> Sequence[str]:
    return ["basic", "pro"]


def get_application() -> FastAPI:
    application = FastAPI(title="Billing")
    application.include_router(api)
    record("built")
    return application


app = get_application()
log.info("ready")
