from fastapi import APIRouter, FastAPI

router = APIRouter(prefix="/jobs")


@router.on_event("startup")
async def start_queue():
    record("queue up")


@router.on_event("shutdown")
async def stop_queue():
    record("queue down")


@router.get("/")
async def jobs():
    return []


app = FastAPI()
app.include_router(router)
