from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI

app = FastAPI()
router = APIRouter()


@router.get("/desktop")
async def desktop():
    return {"state": "idle"}


app.include_router(router)


@asynccontextmanager
async def monitoring_lifespan(app: FastAPI):
    record("monitoring up")
    yield
    record("monitoring down")


app.router.lifespan_context = monitoring_lifespan


@app.get("/")
async def root():
    return {}
