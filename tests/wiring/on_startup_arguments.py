from fastapi import FastAPI


async def connect():
    record("connect")


async def create_indexes():
    record("indexes")


async def disconnect():
    record("disconnect")


app = FastAPI(
    title="Billing",
    on_startup=[connect, create_indexes],
    on_shutdown=[disconnect],
)


@app.get("/")
async def index():
    return {}
