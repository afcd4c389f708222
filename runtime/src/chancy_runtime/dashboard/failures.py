"""Tells visitors only that there was an error; the log has the reason."""

import psycopg

from chancy_runtime.app import Chancy


def database_failed(chancy: Chancy, error: psycopg.Error) -> str:
    """Logs an error of the database, and returns the sentence for the visitor."""
    reason = error.diag.message_primary or type(error).__name__
    chancy.log.warning("dashboard: the database did not answer, or refused: %s", reason)
    return "The database did not answer, or refused: the log of the service says why."
