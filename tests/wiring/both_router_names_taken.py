from fastapi import APIRouter, FastAPI

workers_router = APIRouter(prefix="/workers")
billing_workers_router = APIRouter(prefix="/billing/workers")


@workers_router.get("/")
def workers():
    return []


@billing_workers_router.get("/")
def billing_workers():
    return []


app = FastAPI()
app.include_router(workers_router)
app.include_router(billing_workers_router)
