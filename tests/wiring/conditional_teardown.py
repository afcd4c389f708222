from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(app: FastAPI):
    opened: list[str] = []
    try:
        for name in ("db", "cache"):
            opened.append(name)
            record(f"{name} up")
        try:
            yield
        finally:
            record("stop listening")
    finally:
        while opened:
            record(f"{opened.pop()} down")


app = FastAPI(lifespan=lifespan)
