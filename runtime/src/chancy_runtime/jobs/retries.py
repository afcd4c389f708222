"""When a failed job runs again.

Chancy's RetryPlugin does it for services that list it, and on the worker's clock; it raises
after some thousand attempts, and at settings of another type, and the job then runs again
at once.
"""

import logging
import random
from collections.abc import Mapping
from typing import Any

from chancy import QueuedJob

from chancy_runtime.settings import Settings

# A wait beyond it is a mistake: it would keep the job for good.
_LONGEST = 366 * 86_400


def seconds_until_retry(
    job: QueuedJob, settings: Settings, log: logging.Logger
) -> float:
    """Returns how long a job that has just failed waits for its next attempt.

    The wait doubles with each failure. `retry_settings` in the job's meta are those of
    Chancy's RetryPlugin, with the same meaning: backoff, backoff_factor, backoff_limit
    and backoff_jitter. What they leave out is the service's.

    Args:
        job: With the failed attempt counted.
        settings: Of the service.
        log: Gets a warning about retry_settings that cannot be used.
    """
    try:
        own = job.meta.get("retry_settings") or {}
        return _seconds(job.attempts, settings, own)
    except (ArithmeticError, AttributeError, TypeError, ValueError) as error:
        log.warning(
            "the retry_settings of the job %s (%s) cannot be used (%s): it waits as the "
            "settings of the service say",
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
    # Jobs that failed together do not come back together.
    least, most = own.get("backoff_jitter", (0, wait / 4))
    wait += random.uniform(least, most)
    if not 0 <= wait <= _LONGEST:
        raise ValueError(f"a wait of {wait} seconds")
    return wait
