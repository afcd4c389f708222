from contextlib import asynccontextmanager

import fastapi


@asynccontextmanager
async def lifespan(api: fastapi.FastAPI):
    record("up")
    yield
    record("down")


api = fastapi.FastAPI(lifespan=lifespan)
app = api
handler = app
