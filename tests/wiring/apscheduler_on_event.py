import logging
from datetime import datetime

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from fastapi import FastAPI

logger = logging.getLogger(__name__)
app = FastAPI(title="Billing")
scheduler = BackgroundScheduler(timezone="UTC")


def send_reminders() -> None:
    logger.info("reminders at %s", datetime.now())


@app.on_event("startup")
def start_scheduler() -> None:
    scheduler.add_job(send_reminders, CronTrigger.from_crontab("0 7 * * mon-fri"))
    scheduler.start()
    record(f"scheduler running: {scheduler.running}")


@app.on_event("shutdown")
def stop_scheduler() -> None:
    scheduler.shutdown(wait=False)
    record(f"scheduler running: {scheduler.running}")


@app.get("/jobs")
def jobs() -> list[str]:
    return [job.id for job in scheduler.get_jobs()]
