"""The program that the commands belong to."""

import argparse
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import chancy

from chancy_runtime.app import Chancy

if TYPE_CHECKING:
    from fastapi import APIRouter

Parsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


@dataclass(frozen=True, kw_only=True)
class Program:
    """A service's program, `python -m <its package>.workers`.

    Args:
        create_chancy: Builds the service's Chancy; nothing is entered.
        name: The typed command line without the command, such as `python -m app.workers`.
        package: The package of the workers.
        initialize_workers: Runs the workers while it is entered.
        get_chancy: Returns the running Chancy, or raises a RuntimeError.
        app_module: The module with the API's app; importing it sets up logs and Sentry.
        dashboard: The dashboard's routes, which `run` serves.
    """

    create_chancy: Callable[[], chancy.Chancy]
    name: str
    package: str | None
    initialize_workers: Callable[[], AbstractAsyncContextManager[None]] | None = None
    get_chancy: Callable[[], Chancy] | None = None
    app_module: str | None = None
    dashboard: "APIRouter | None" = None


# Runs a command and returns its exit status; it may raise a WorkersError.
Command: TypeAlias = Callable[[Program, argparse.Namespace], int]


def add_command(
    parsers: Parsers, name: str, run: Command, text: str
) -> argparse.ArgumentParser:
    """Adds a command, and returns the parser for its arguments.

    Args:
        text: The help text.
    """
    parser = parsers.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}."
    )
    parser.set_defaults(run=run)
    return parser


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds --json, for programs."""
    parser.add_argument("--json", action="store_true", help="print one JSON object")
