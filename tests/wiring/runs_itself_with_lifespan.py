#!/usr/bin/env python3
import logging
import os
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI

import config

logging.basicConfig(level=logging.INFO)
logger = logging.getLogger(__name__)


@asynccontextmanager
async def lifespan(app: FastAPI):
    record("polling")
    try:
        yield
    finally:
        record("polling stopped")


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def root():
    return {"status": "live"}


if __name__ == "__main__":
    port = int(os.environ.get("PORT", config.PORT))
    logger.info(f"Starting on {port}")
    uvicorn.run(app, host="0.0.0.0", port=port)
