from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    yield


api = FastAPI(title="Billing API", lifespan=lifespan)
app = FastAPI()
app.mount("/api", api)
