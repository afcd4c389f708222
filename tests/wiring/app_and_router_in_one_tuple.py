from fastapi import APIRouter, FastAPI

app, router = FastAPI(), APIRouter(prefix="/api")


@router.get("/things")
def things():
    return ["a", "b"]


app.include_router(router)
