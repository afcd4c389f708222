from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    unused = yield
    record(f"down with {unused}")


app = FastAPI(lifespan=lifespan)
