from contextlib import asynccontextmanager

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger
from fastapi import FastAPI

scheduler = AsyncIOScheduler(timezone="UTC")


@scheduler.scheduled_job("cron", hour=7, id="digest")
async def send_digest():
    print("digest")


async def expire_invoices():
    print("expire")


@asynccontextmanager
async def lifespan(app: FastAPI):
    scheduler.add_job(expire_invoices, IntervalTrigger(minutes=15), id="expire")
    scheduler.start()
    record(f"scheduler: {scheduler.running}")
    yield
    record(f"jobs: {sorted(job.id for job in scheduler.get_jobs())}")
    scheduler.shutdown()


app = FastAPI(lifespan=lifespan)
