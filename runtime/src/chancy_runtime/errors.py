"""The error of a start, and how it reads in the server's log."""

import logging
import sys
from collections.abc import Iterable, Mapping
from typing import NoReturn


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


def is_chancys_worker_command() -> bool:
    """Whether this is Chancy's own program with the command `worker start`."""
    if "chancy.cli.worker" not in sys.modules:
        return False
    from click import get_current_context

    context = get_current_context(silent=True)
    return context is not None and context.command_path.endswith(" worker start")


def refuse_chancys_worker(what: str, package: str) -> NoReturn:
    """Refuses a start in Chancy's Worker, and names what starts instead.

    Raises:
        WorkersError: Always; in Chancy's program a ClickException, which is one line there.
    """
    service = package.removesuffix(".workers")
    module = f"{service}.main" if service != package else "your.module"
    message = (
        f"{what} of chancy_runtime does not run in Chancy's own Worker: start the "
        f"service, which starts its workers (for example uvicorn {module}:app), or use "
        "chancy_runtime.Worker with chancy_runtime.Chancy in a program of your own"
    )
    if not is_chancys_worker_command():
        raise WorkersError(message)
    from click import ClickException

    raise ClickException(message)


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
