"""The commands of a service's workers: python -m <the service's package>.workers."""

import argparse
import sys
from collections.abc import Callable
from typing import NoReturn

import chancy

from chancy_runtime.commands import tables
from chancy_runtime.commands.program import Program
from chancy_runtime.errors import WorkersError

# Each adds its commands, in the order of the help.
_MODULES = (tables,)


def main(create_chancy: Callable[[], chancy.Chancy], package: str | None) -> NoReturn:
    """Runs the command that was typed and exits with its status.

    `migrate` creates or upgrades Chancy's tables; `status` shows the database and what is
    due, with `--json` for programs. The exit status is 0 when the tables are as they
    should be, 1 when a migration is due, a table is open to Supabase's public API or the
    command failed, and 2 for bad usage.

    Args:
        create_chancy: Builds the service's Chancy; nothing is entered.
        package: The package of the workers, for the messages: `__package__`.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {package}",
        description="The workers and their tables in the database that "
        "WORKERS_DATABASE_URL names, or in the one of the service's secret.",
    )
    parsers = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for module in _MODULES:
        module.add_commands(parsers)
    arguments = parser.parse_args()
    program = Program(create_chancy=create_chancy, name=parser.prog, package=package)
    try:
        status: int = arguments.run(program, arguments)
    except WorkersError as error:
        print(f"{program.name}: {error}", file=sys.stderr)
        status = 1
    sys.exit(status)
