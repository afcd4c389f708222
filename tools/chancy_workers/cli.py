"""The console program `chancy-workers`: one module for each command."""

import argparse
import sys
from types import ModuleType
from typing import NoReturn

from . import add_job, adopt, check, demo, remove_job, update, wire
from .repository import leave_the_caller_s_repository

# Each module has add_parser(commands), which sets `run` to a function that takes the
# arguments and returns the exit status.
COMMANDS: tuple[ModuleType, ...] = (
    wire,
    adopt,
    add_job,
    remove_job,
    update,
    check,
    demo,
)


def main() -> NoReturn:
    """Runs the command that was named and exits with its status."""
    arguments = make_parser().parse_args()
    leave_the_caller_s_repository()
    try:
        sys.exit(arguments.run(arguments))
    except KeyboardInterrupt:
        print(
            "chancy-workers: stopped; git status shows what was written",
            file=sys.stderr,
        )
        sys.exit(130)


def make_parser() -> argparse.ArgumentParser:
    """Returns the parser with all commands."""
    parser = argparse.ArgumentParser(
        prog="chancy-workers",
        description="Puts Chancy workers into FastAPI services and keeps them current.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands)
    return parser
