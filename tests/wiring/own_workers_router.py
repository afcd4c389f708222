from fastapi import APIRouter, FastAPI

workers_router = APIRouter(prefix="/workers", tags=["workers"])


@workers_router.get("/")
async def list_workers() -> list[dict[str, str]]:
    return [{"name": "Ada", "trade": "plumber"}]


@workers_router.get("/{name}/hours")
async def hours(name: str) -> int:
    return 38


app = FastAPI(title="Site billing")
app.include_router(workers_router)
