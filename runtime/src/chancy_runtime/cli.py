"""Commands for the tables: python -m <the service's package>.workers migrate | status."""

import argparse
import asyncio
import sys

import psycopg

from chancy_runtime.postgres.target import connect, target
from chancy_runtime.errors import WorkersError
from .chancy_initialization import create_chancy
from chancy_runtime.postgres.security import find_open_tables, refuse_hidden_table
from chancy_runtime.postgres.migrations import migrate, parts_of, tables_of, version_table


async def run_migrate() -> int:
    """Creates or upgrades the tables, then shows them."""
    await migrate(create_chancy())
    return await run_status()


async def run_status() -> int:
    """Shows the target and its migrations; 1 when some are due or a table is open."""
    chancy = create_chancy()
    async with await connect(chancy.dsn) as connection:
        print(f"{chancy.prefix}* at {target(connection)}")
        try:
            await refuse_hidden_table(connection, version_table(chancy))
            parts = await parts_of(connection, chancy)
            open_tables = await find_open_tables(connection, tables_of(chancy, parts))
        except psycopg.Error as error:
            reason = " ".join(str(error).split())
            raise WorkersError(
                f"PostgreSQL refused to show what is applied ({reason}): connect as the "
                "owner of the tables"
            ) from error
    for part in parts:
        print(f"  {part}")
    if open_tables:
        print(f"  open to Supabase's public API: {', '.join(open_tables)}")
    if open_tables or any(part.due for part in parts):
        print(f"run python -m {__package__} migrate")
        return 1
    return 0


def main() -> int:
    """Runs the command that was typed; the exit status tells whether it went well."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {__package__}",
        description="Chancy's tables in the database that WORKERS_DATABASE_URL names, "
        "or in the one of the service's secret.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in (("migrate", run_migrate), ("status", run_status)):
        subparser = commands.add_parser(name, help=(command.__doc__ or "").rstrip("."))
        subparser.set_defaults(command=command)
    try:
        status: int = asyncio.run(parser.parse_args().command())
        return status
    except WorkersError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
