"""What visitors get to know of an error: that there was one. The log has the reason."""

import psycopg

from chancy_runtime.app import Chancy


def database_failed(chancy: Chancy, error: psycopg.Error) -> str:
    """Logs an error of the database, and returns what a visitor may know of it."""
    reason = error.diag.message_primary or type(error).__name__
    chancy.log.warning(
        "dashboard: the database did not answer as it should: %s", reason
    )
    return "The database did not answer, or refused: the log of the service says why."
