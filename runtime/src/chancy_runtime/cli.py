"""The commands of a service's workers: python -m <the service's package>.workers."""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import chancy
import psycopg

from chancy_runtime.errors import WorkersError
from chancy_runtime.postgres.connecting import connect, reason_of, target
from chancy_runtime.postgres.grants import grants
from chancy_runtime.postgres.migrations import (
    migrate,
    parts_of,
    tables_of,
    version_table,
)
from chancy_runtime.postgres.security import find_open_tables, refuse_hidden_table


def main(create_chancy: Callable[[], chancy.Chancy], package: str | None) -> NoReturn:
    """Runs the command that was typed and exits with its status.

    `migrate` creates or upgrades Chancy's tables, or prints with `--print-grants` what
    other roles than their owner need; `status` shows the database and what is
    due, with `--json` for programs. The exit status is 0 when the tables are as they
    should be, 1 when a migration is due, a table is open to Supabase's public API or the
    command failed, and 2 for bad usage.

    Args:
        create_chancy: Builds the service's Chancy; nothing is entered.
        package: The package of the workers, for the messages: `__package__`.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {package}",
        description="Chancy's tables in the database that WORKERS_DATABASE_URL names, "
        "or in the one of the service's secret.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    for name, text in (
        ("migrate", "create or upgrade the tables, then show them"),
        (
            "status",
            "show the database and what is due; exit status 1 when something is",
        ),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(
            "--json", action="store_true", help="print one JSON object"
        )
        if name == "migrate":
            command.add_argument(
                "--print-grants",
                action="store_true",
                help="migrate nothing, and print the SQL for roles with the least rights",
            )
    arguments = parser.parse_args()
    try:
        app = create_chancy()
        if arguments.command == "migrate" and arguments.print_grants:
            print(asyncio.run(grants(app, command=f"{parser.prog} migrate")), end="")
            sys.exit(0)
        if arguments.command == "migrate":
            asyncio.run(migrate(app))
        status = asyncio.run(read_status(app))
    except WorkersError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        sys.exit(1)
    if arguments.json:
        print(json.dumps(status))
    else:
        show(status, f"run {parser.prog} migrate")
    sys.exit(0 if status["ok"] else 1)


async def read_status(app: chancy.Chancy) -> dict[str, Any]:
    """Returns what is applied and what is due, as `status --json` prints it.

    Raises:
        WorkersError: The database does not answer, or does not show its tables.
    """
    async with await connect(app.dsn) as connection:
        try:
            await refuse_hidden_table(connection, version_table(app))
            parts = await parts_of(connection, app)
            open_tables = await find_open_tables(connection, tables_of(app, parts))
        except psycopg.Error as error:
            raise WorkersError(
                f"PostgreSQL refused to show what is applied ({reason_of(error)}): "
                "connect as the owner of the tables"
            ) from error
        return {
            "ok": not open_tables and not any(part.due for part in parts),
            "prefix": app.prefix,
            "database": target(connection),
            "parts": [
                {
                    "name": part.name,
                    "applied": part.applied,
                    "known": part.known,
                    "due": list(part.due),
                    "text": str(part),
                }
                for part in parts
            ],
            "open_tables": open_tables,
        }


def show(status: dict[str, Any], command: str) -> None:
    """Prints a status for people.

    Args:
        command: What mends it.
    """
    print(f"{status['prefix']}* at {status['database']}")
    for part in status["parts"]:
        print(f"  {part['text']}")
    if status["open_tables"]:
        print(f"  open to Supabase's public API: {', '.join(status['open_tables'])}")
    if not status["ok"]:
        print(command)
