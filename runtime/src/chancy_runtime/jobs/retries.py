"""Computes when a failed job runs again.

Chancy's RetryPlugin does so only for services that list it, and it uses the worker's clock.
It raises an error after some thousand attempts, and for settings of a wrong type; the job
then runs again at once.
"""

import logging
import random
from collections.abc import Mapping
from typing import Any

from chancy import QueuedJob

from chancy_runtime.settings import Settings

# A longer wait is a mistake: the job would wait for ever.
_LONGEST = 366 * 86_400


def seconds_until_retry(
    job: QueuedJob, settings: Settings, log: logging.Logger
) -> float:
    """Returns how long a job that has just failed waits for its next attempt.

    The wait doubles with each failure. `retry_settings` in the job's meta have the same
    meaning as in Chancy's RetryPlugin: backoff, backoff_factor, backoff_limit and
    backoff_jitter. The service's settings replace those that are missing.

    Args:
        job: The job, whose attempts include the failed one.
        settings: The service's settings.
        log: Gets a warning about invalid retry_settings.
    """
    try:
        own = job.meta.get("retry_settings") or {}
        return _seconds(job.attempts, settings, own)
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        log.warning(
            "the retry_settings of the job %s (%s) are not valid (%s): it waits for the time "
            "in the service's settings; correct them where the job is defined",
            *(job.func, job.id, error),
        )
        return _seconds(job.attempts, settings, {})


def _seconds(failures: int, settings: Settings, own: Mapping[str, Any]) -> float:
    limit = float(own.get("backoff_limit", settings.retry_limit))
    try:
        first = float(own.get("backoff", settings.retry_wait))
        growth = float(own.get("backoff_factor", 2)) ** (failures - 1)
        wait = min(first * growth, limit)
    except OverflowError:
        wait = limit
    # Jobs that failed at the same time must not all run again at the same time.
    least, most = own.get("backoff_jitter", (0, wait / 4))
    wait += random.uniform(least, most)
    if not 0 <= wait <= _LONGEST:
        raise ValueError(f"a wait of {wait} seconds")
    return wait
