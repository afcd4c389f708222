import os
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("up")
    yield
    record("down")


app_params: dict[str, Any] = {"title": "Billing", "lifespan": lifespan}

if os.environ.get("ENVIRONMENT") == "production":
    app_params["openapi_url"] = None

app = FastAPI(**app_params)


@app.get("/healthcheck", include_in_schema=False)
async def healthcheck() -> dict[str, str]:
    return {"status": "ok"}
