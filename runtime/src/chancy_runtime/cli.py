"""The commands of a service's workers: python -m <the service's package>.workers."""

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from io import TextIOWrapper
from typing import TYPE_CHECKING, NoReturn

import chancy

from chancy_runtime.app import Chancy
from chancy_runtime.commands import actions, listings, pauses, running, tables
from chancy_runtime.commands.program import Program
from chancy_runtime.errors import WorkersError
from chancy_runtime.modes import Process, become

if TYPE_CHECKING:
    from fastapi import APIRouter

# Each adds its commands, in the order of the help.
_MODULES = (tables, running, listings, actions, pauses)


def main(
    create_chancy: Callable[[], chancy.Chancy],
    package: str | None,
    *,
    initialize_workers: Callable[[], AbstractAsyncContextManager[None]] | None = None,
    get_chancy: Callable[[], Chancy] | None = None,
    app_module: str | None = None,
    dashboard: "APIRouter | None" = None,
) -> NoReturn:
    """Runs the command that was typed and exits with its status.

    `migrate` creates or upgrades Chancy's tables; `status` shows the database and the
    migrations that are due. `jobs`, `queues`, `workers` and `cron` list their rows; `retry`,
    `cancel`, `purge`, `pause` and `resume` change them. Each takes `--json` for programs.

    The exit status of `migrate` and `status` is 0 when the tables are as they should be,
    and 1 when a migration is due or a table is open to Supabase's public API. The other
    commands exit with 1 when they left a job alone that was named by its id. The status is
    1 for each command that failed, 2 for bad usage and 130 after Ctrl-C.

    `run` runs the workers in this process, whatever WORKERS_MODE says. Its exit status is
    0 after a stop by SIGTERM or SIGINT.

    Args:
        create_chancy: Builds the service's Chancy; nothing is entered.
        package: The package of the workers, for the messages: `__package__`.
        initialize_workers: Runs the workers while it is entered; `run` needs it.
        get_chancy: Returns the running Chancy; `run` needs it.
        app_module: The module with the API's app. `run` imports it first, so that logs and
            Sentry are set up the same way.
        dashboard: The result of dashboard_router(), which `run` serves beside the workers.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {package}",
        description="The workers and their tables in the database that "
        "WORKERS_DATABASE_URL names, or else in the database of the service's secret.",
    )
    parsers = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for module in _MODULES:
        module.add_commands(parsers)
    arguments = parser.parse_args()
    # WORKERS_MODE applies to the API only.
    become(Process(kind="own"))
    program = Program(
        create_chancy=create_chancy,
        name=parser.prog,
        package=package,
        initialize_workers=initialize_workers,
        get_chancy=get_chancy,
        app_module=app_module,
        dashboard=dashboard,
    )
    sys.exit(_run(program, arguments))


def _run(program: Program, arguments: argparse.Namespace) -> int:
    if isinstance(sys.stdout, TextIOWrapper):
        # Rows may have characters that the terminal's encoding lacks.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status: int = arguments.run(program, arguments)
        sys.stdout.flush()
    except WorkersError as error:
        print(f"{program.name}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # https://docs.python.org/3/library/signal.html#note-on-sigpipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status
