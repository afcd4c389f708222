"""A FastAPI app that runs the workers which WORKERS names: none, plain or rendered."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from importlib import import_module

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    url = os.environ["WORKERS_DATABASE_URL"]
    match os.environ["WORKERS"]:
        case "plain":
            workers = import_module("plain_chancy").initialize_workers(url, 100)
        case "rendered":
            sys.path.insert(0, "")
            import_module("app.observability").configure_logging()
            module = import_module("app.billing.workers.chancy_initialization")
            workers = module.initialize_workers()
        case _:
            workers = nullcontext()
    async with workers:
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/ping")
async def ping() -> dict[str, str]:
    return {"status": "here"}
