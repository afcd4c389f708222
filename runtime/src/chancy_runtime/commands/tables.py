"""The commands `migrate` and `status`, which are about the tables and their migrations."""

import argparse
import asyncio
import json
from typing import Any

import chancy
import psycopg

from chancy_runtime.commands.program import Parsers, Program, add_command, add_json
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


def add_commands(parsers: Parsers) -> None:
    """Adds `migrate` and `status`."""
    text = "create or upgrade the tables, then show them"
    migration = add_command(parsers, "migrate", run_migrate, text)
    add_json(migration)
    migration.add_argument(
        "--print-grants",
        action="store_true",
        help="migrate nothing, and print the SQL for roles with the least rights",
    )
    text = (
        "show the database and the migrations that are due; exit status 1 when one is due "
        "or a table is open to Supabase's public API"
    )
    add_json(add_command(parsers, "status", run_status, text))


def run_migrate(program: Program, arguments: argparse.Namespace) -> int:
    app = program.create_chancy()
    if arguments.print_grants:
        print(asyncio.run(grants(app, command=f"{program.name} migrate")), end="")
        return 0
    asyncio.run(migrate(app))
    return _show_status(app, program, arguments)


def run_status(program: Program, arguments: argparse.Namespace) -> int:
    return _show_status(program.create_chancy(), program, arguments)


def _show_status(
    app: chancy.Chancy, program: Program, arguments: argparse.Namespace
) -> int:
    status = asyncio.run(read_status(app))
    if arguments.json:
        print(json.dumps(status))
    else:
        _show(status, f"run {program.name} migrate")
    return 0 if status["ok"] else 1


async def read_status(app: chancy.Chancy) -> dict[str, Any]:
    """Returns the applied and the due migrations in the format of `status --json`.

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
                f"PostgreSQL refused to show the migrations ({reason_of(error)}): "
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


def _show(status: dict[str, Any], command: str) -> None:
    """Prints a status for people.

    Args:
        command: The command that applies what is due.
    """
    print(f"{status['prefix']}* at {status['database']}")
    for part in status["parts"]:
        print(f"  {part['text']}")
    if status["open_tables"]:
        print(f"  open to Supabase's public API: {', '.join(status['open_tables'])}")
    if not status["ok"]:
        print(command)
