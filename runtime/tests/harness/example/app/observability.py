"""Logging and Sentry, configured once for every service of the backend."""

import logging
import logging.config
import os

import sentry_sdk


class OneLineFormatter(logging.Formatter):
    """Writes an event and its traceback on one line, for log collectors."""

    def format(self, record: logging.LogRecord) -> str:
        """Formats a record, its line breaks escaped."""
        return super().format(record).replace("\n", "\\n")


def configure_logging() -> None:
    """Sends every event to standard output, one line each.

    LOG_LEVEL sets the level; the default is INFO.
    """
    level = (os.environ.get("LOG_LEVEL") or "INFO").upper()
    known = level in logging.getLevelNamesMapping()
    to_root: dict[str, object] = {
        "handlers": [],
        "propagate": True,
        "level": "NOTSET",
    }
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "one_line": {
                    "()": OneLineFormatter,
                    "format": "%(asctime)s %(levelname)s %(name)s: %(message)s",
                }
            },
            "handlers": {
                "stdout": {
                    "class": "logging.StreamHandler",
                    "stream": "ext://sys.stdout",
                    "formatter": "one_line",
                }
            },
            "loggers": {
                "uvicorn": to_root,
                "uvicorn.access": to_root,
                "uvicorn.error": to_root,
            },
            "root": {
                "handlers": ["stdout"],
                "level": level if known else "INFO",
            },
        }
    )
    if not known:
        logging.getLogger(__name__).warning(
            "LOG_LEVEL is %r, which is not a level, so INFO is used: set it to DEBUG, "
            "INFO, WARNING, ERROR or CRITICAL",
            level,
        )


def configure_sentry() -> None:
    """Starts Sentry when SENTRY_DSN is set."""
    if dsn := os.environ.get("SENTRY_DSN"):
        sentry_sdk.init(dsn)
