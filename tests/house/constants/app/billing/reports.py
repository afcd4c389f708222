from app.billing.workers.chancy_initialization import HOURS_KEPT


def hours() -> int:
    return HOURS_KEPT
