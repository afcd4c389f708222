import atexit
from contextlib import asynccontextmanager

from apscheduler.schedulers.background import BackgroundScheduler
from fastapi import FastAPI

scheduler = BackgroundScheduler({"apscheduler.timezone": "UTC"})
scheduler.add_job(print, "interval", hours=1, args=["tick"])
scheduler.start()
atexit.register(lambda: scheduler.running and scheduler.shutdown())
record("scheduler started")


@asynccontextmanager
async def lifespan(app: FastAPI):
    try:
        yield
    finally:
        scheduler.shutdown(wait=False)
        record("scheduler stopped")


app = FastAPI(lifespan=lifespan)
