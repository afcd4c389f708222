from __future__ import annotations

import typing as t

from fastapi import FastAPI

from ..shared import TITLE
from .api import router

if t.TYPE_CHECKING:
    from fastapi import APIRouter

app = FastAPI(title=TITLE)


def include(routers: list[APIRouter]) -> None:
    for each in routers:
        app.include_router(each)


include([router])
