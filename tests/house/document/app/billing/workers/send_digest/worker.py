"""Sends the digest."""

import logging

from chancy import job

logger = logging.getLogger(__name__)


@job(queue="default", max_attempts=3)
async def send_digest(*, note: str = "plain") -> None:
    logger.info('digest:   %s', note)  # as the team likes it
