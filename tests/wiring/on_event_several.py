from fastapi import APIRouter, FastAPI

app = FastAPI()
router = APIRouter()


@app.on_event("startup")
async def open_database():
    record("database open")


@app.on_event("startup")
async def open_cache():
    record("cache open")


app.include_router(router)


@app.on_event("shutdown")
async def close_cache():
    record("cache closed")


@app.on_event("shutdown")
async def close_database():
    record("database closed")


@app.on_event("startup")
async def warm_up():
    record("warm")
