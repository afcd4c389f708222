from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def public_lifespan(app: FastAPI):
    record("public up")
    yield
    record("public down")


@asynccontextmanager
async def internal_lifespan(app: FastAPI):
    record("internal up")
    yield
    record("internal down")


app = FastAPI(lifespan=public_lifespan)
internal = FastAPI(lifespan=internal_lifespan)
