"""A connection for one command; errors of the database become messages."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import LiteralString

import chancy
import psycopg
from psycopg import AsyncConnection, IsolationLevel, errors
from psycopg.rows import TupleRow

from chancy_runtime.commands.program import Program
from chancy_runtime.errors import WorkersError
from chancy_runtime.postgres.connecting import RIGHTS, connect, reason_of
from chancy_runtime.postgres.migrations import version_table
from chancy_runtime.postgres.operations import TIMEOUT
from chancy_runtime.postgres.security import refuse_hidden_table
from chancy_runtime.postgres.target import target_of

_WAYS_OUT: dict[type[psycopg.Error], str] = {
    errors.UndefinedTable: "run {name} migrate",
    errors.UndefinedColumn: "run {name} migrate",
    errors.InsufficientPrivilege: RIGHTS,
    errors.ReadOnlySqlTransaction: "point the URL at the primary, or end its "
    "read-only mode",
    errors.QueryCanceled: f"it took longer than {TIMEOUT} s; name fewer jobs with "
    "--queue, --state or --limit, or wait until the table is less busy",
    psycopg.Error: "look at the database's log and load, and try again",
}


@asynccontextmanager
async def session(
    program: Program, app: chancy.Chancy
) -> AsyncIterator[AsyncConnection[TupleRow]]:
    """Opens the one connection of a command; Chancy's pool would open several.

    Raises:
        WorkersError: The database does not answer, hides the tables, or refuses a statement
            of the block.
    """
    async with await connect(app.dsn) as connection:
        connection.prepare_threshold = None
        await connection.set_isolation_level(IsolationLevel.READ_COMMITTED)
        try:
            await refuse_hidden_table(connection, version_table(app))
            yield connection
        except psycopg.Error as error:
            way_out = next(
                text for kind, text in _WAYS_OUT.items() if isinstance(error, kind)
            )
            reason = error.diag.message_primary or reason_of(error)
            raise WorkersError(
                f"the database at {target_of(app.dsn)} refused ({reason}): "
                f"{way_out.format(name=program.name)}"
            ) from error


def in_utc(column: LiteralString) -> LiteralString:
    """Returns SQL for a time as text, in UTC and ISO 8601; NULL for an infinite time."""
    return f"""to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"')"""
