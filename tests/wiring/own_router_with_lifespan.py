from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI


@asynccontextmanager
async def reports_lifespan(app: FastAPI) -> AsyncIterator[None]:
    record("reports up")
    yield
    record("reports down")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    record("app up")
    yield
    record("app down")


reports = APIRouter(prefix="/reports", lifespan=reports_lifespan)


@reports.get("/")
async def list_reports() -> list[str]:
    return []


app = FastAPI(lifespan=lifespan)
app.include_router(reports)
