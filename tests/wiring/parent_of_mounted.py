from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def admin_lifespan(app: FastAPI):
    record("never runs: it is mounted")
    yield


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    yield
    record("down")


admin = FastAPI(lifespan=admin_lifespan)
app = FastAPI(lifespan=lifespan)
app.mount("/admin", admin)
