"""Connects to the database, or reports in one line why it cannot."""

import select

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.conninfo import make_conninfo
from psycopg.errors import (
    InsufficientPrivilege,
    InvalidSchemaName,
    ReadOnlySqlTransaction,
)
from psycopg.rows import TupleRow

from chancy_runtime.errors import WorkersError
from chancy_runtime.postgres.connections import DroppableConnection
from chancy_runtime.postgres.target import target_of

# Seconds for one host to answer; libpq tries the hosts of a URL one after the other.
CONNECT_TIMEOUT = 5
# The way out for a role that lacks a right.
RIGHTS = (
    "connect as the owner of the tables, or as a role with the rights that migrate "
    "--print-grants prints"
)
_CORRECT_HOST = "correct the host in the URL"
# What to do about a refused connection, by words in its reason, because libpq gives no
# SQLSTATE for a refused connection. Errors of statements have one and are not looked up here.
_WAYS_OUT = {
    "too many|connection slots|max_client_conn|no more connections": (
        "end other connections, or raise the limit (max_connections, the role's "
        "CONNECTION LIMIT or the pooler's pool size)"
    ),
    "tenant|password|authentication|role |pg_hba": (
        "correct the user and the password in the URL (on Supabase's pooler the user is "
        "postgres.<project>)"
    ),
    "permission denied for database": "grant CONNECT on it to the user of the URL",
    "database system is|not currently accepting": (
        "start again when it takes connections"
    ),
    'database "|no such database': (
        "create it with createdb, or correct its name in the URL"
    ),
    "resolve host": _CORRECT_HOST,
    "ssl|tls|certificate": (
        "correct sslmode, sslrootcert, sslcert or sslkey in the URL, or the variables "
        "PGSSLMODE, PGSSLROOTCERT, PGSSLCERT or PGSSLKEY"
    ),
    "service file|definition of service": "correct service in the URL, or PGSERVICE and its file",
    "invalid |unrecognized |channel binding|gssapi|standby mode|session is ": (
        "correct that parameter in the URL"
    ),
    "": "start it, or point WORKERS_DATABASE_URL at a server that answers",
}


def target(connection: AsyncConnection[TupleRow]) -> str:
    """Returns "host:port/database" of a connection."""
    info = connection.info
    return f"{info.host or 'localhost'}:{info.port}/{info.dbname}"


def refuse_other_systems() -> None:
    """Makes sure that the connections can work on this operating system.

    Raises:
        WorkersError: It is Windows, where psycopg cannot use asyncio's default loop either.
    """
    if not hasattr(select, "poll"):
        raise WorkersError(
            "the workers run on Linux and macOS only, and this system has no "
            "select.poll(): start them there, on Windows in WSL or in a container"
        )


async def connect(url: str) -> AsyncConnection[TupleRow]:
    """Opens one connection.

    Raises:
        WorkersError: The server does not answer, or refuses. The message has its reason.
    """
    refuse_other_systems()
    try:
        return await DroppableConnection.connect(
            make_conninfo(url, connect_timeout=CONNECT_TIMEOUT), autocommit=True
        )
    except (psycopg.Error, UnicodeError) as error:
        reason = reason_of(error)
        # Python's message for an invalid host name differs between its versions.
        way_out = _CORRECT_HOST if isinstance(error, UnicodeError) else _way_out(reason)
        raise WorkersError(
            f"cannot connect to the database at {target_of(url)} ({reason}): {way_out}"
        ) from error


def _way_out(reason: str) -> str:
    """Returns what to do about a refused connection."""
    return next(
        way_out
        for signs, way_out in _WAYS_OUT.items()
        if any(sign in reason.lower() for sign in signs.split("|"))
    )


def reason_of(error: BaseException) -> str:
    """Returns the text of an error in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def harmless_write(prefix: str) -> sql.Composed:
    """Returns a statement that changes no row, but only works where one could change."""
    return sql.SQL("UPDATE {} SET worker_id = worker_id WHERE false").format(
        sql.Identifier(f"{prefix}workers")
    )


def harmless_push(prefix: str) -> sql.Composed:
    """Returns a push of no job, for a role that may only push."""
    return sql.SQL("INSERT INTO {} (id) SELECT gen_random_uuid() WHERE false").format(
        sql.Identifier(f"{prefix}jobs")
    )


def failed_start(database: str, error: BaseException) -> WorkersError:
    """Returns the one-line error for a database that accepted a connection before."""
    otherwise = "look at the database's log and load, and start again"
    if isinstance(error, InsufficientPrivilege):
        otherwise = RIGHTS
    return WorkersError(
        f"the workers cannot start on the database {database} ({reason_of(error)}): "
        f"{way_out_of(error, otherwise)}"
    )


def way_out_of(error: BaseException, otherwise: str) -> str:
    """Returns what to do about an error of a database that cannot be used as it is."""
    match error:
        case ReadOnlySqlTransaction():
            return "point the URL at the primary, or end its read-only mode"
        case InvalidSchemaName():
            return (
                "set search_path of the role or the database to a schema that is there"
            )
    return otherwise
