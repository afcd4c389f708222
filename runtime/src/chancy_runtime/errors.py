"""Start errors that read as one line."""

import logging


class WorkersError(RuntimeError):
    """What keeps the workers from starting: one line that ends with the way out."""


def _last_line_only(record: logging.LogRecord) -> bool:
    """Cuts the traceback of a WorkersError down to its message; the rest goes to debug.

    Starlette hands a failed lifespan to the server as a formatted traceback, and
    uvicorn logs that text as it is.
    """
    text = record.getMessage()
    _, found, message = text.rpartition(f"{__name__}.{WorkersError.__name__}: ")
    if found and record.levelno >= logging.ERROR and text.startswith("Traceback"):
        logging.getLogger(__package__).debug("%s", text)
        record.msg, record.args = message.rstrip(), ()
    return True


logging.getLogger("uvicorn.error").addFilter(_last_line_only)
