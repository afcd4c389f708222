from app.billing.workers.chancy_initialization import HOURS_KEPT, hourly


def hours() -> int:
    return HOURS_KEPT


def schedule() -> str:
    return hourly(5)
