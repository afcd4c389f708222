"""The error of a start, and how it reads in the server's log."""

import logging
from collections.abc import Iterable, Mapping


class WorkersError(RuntimeError):
    """The workers cannot start. Its message is one line: the reason, then what to do."""

    # Tracebacks and logs show the name that services import.
    __module__ = "chancy_runtime"


def refuse_arguments(
    kind: str, given: Iterable[str], replaced: Mapping[str, str]
) -> None:
    """Refuses the arguments of Chancy's class that would have no effect here.

    Args:
        kind: The name of the class.
        given: The names of the passed arguments that the class does not have.
        replaced: By the name of an argument, what to do instead of passing it.

    Raises:
        WorkersError: One of them is an argument of Chancy's class.
        TypeError: One of them is not an argument of Chancy's class either.
    """
    for name in given:
        if name not in replaced:
            raise TypeError(f"{kind} got an unexpected keyword argument {name!r}")
        raise WorkersError(f"{kind} takes no {name} here: {replaced[name]}")


def show_start_errors_as_one_line() -> None:
    """Makes uvicorn log a WorkersError as its one line; the traceback goes to debug.

    Starlette hands a failed lifespan to the server as a formatted traceback, and
    uvicorn logs that text as it is. Calling this again changes nothing.
    """
    logging.getLogger("uvicorn.error").addFilter(_last_line_only)


def _last_line_only(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    name = f"{WorkersError.__module__}.{WorkersError.__qualname__}: "
    _, found, message = text.rpartition(name)
    if found and record.levelno >= logging.ERROR and text.startswith("Traceback"):
        logging.getLogger(WorkersError.__module__).debug("%s", text)
        record.msg, record.args = message.rstrip(), ()
    return True
