"""Connects to the database, and says in one line why that cannot be done."""

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
# The way out for a role that may not do what it has to.
RIGHTS = (
    "connect as the owner of the tables, or as a role with what migrate --print-grants "
    "prints"
)
_CORRECT_HOST = "correct the host in the URL"
# What to do about a refused connection, by words in its reason: libpq gives no SQLSTATE for
# one. An error of a statement has one, and is never looked up here.
_WAYS_OUT = {
    "too many|connection slots|max_client_conn|no more connections": (
        "end other connections, or raise the limit (max_connections, the role's "
        "CONNECTION LIMIT or the pooler's pool size)"
    ),
    "tenant|password|authentication|role |pg_hba": (
        "correct the user and the password in the URL (on Supabase's pooler the user is "
        "postgres.<project>)"
    ),
    "database ": "create it with createdb, or correct its name in the URL",
    "resolve host": _CORRECT_HOST,
    "ssl|tls|certificate": (
        "correct sslmode, sslrootcert, sslcert or sslkey in the URL or in PGSSLMODE and "
        "its like"
    ),
    "service file|definition of service": "correct service in the URL, or PGSERVICE and its file",
    "": "start it, or point WORKERS_DATABASE_URL at one that answers",
}


def target(connection: AsyncConnection[TupleRow]) -> str:
    """Returns "host:port/database" of a connection."""
    info = connection.info
    return f"{info.host or 'localhost'}:{info.port}/{info.dbname}"


def refuse_other_systems() -> None:
    """Makes sure that this system has what the connections need.

    Raises:
        WorkersError: It is Windows, where psycopg does not have asyncio's usual loop either.
    """
    if not hasattr(select, "poll"):
        raise WorkersError(
            "the workers run on Linux and macOS only, and this system has no "
            "select.poll(): start them there, on Windows in WSL or in a container"
        )


async def connect(url: str) -> AsyncConnection[TupleRow]:
    """Opens one connection, or says in one line why there is none.

    Raises:
        WorkersError: The server does not answer or refuses, with its own reason.
    """
    refuse_other_systems()
    try:
        return await DroppableConnection.connect(
            make_conninfo(url, connect_timeout=CONNECT_TIMEOUT), autocommit=True
        )
    except (psycopg.Error, UnicodeError) as error:
        reason = reason_of(error)
        # Python says in other words in each version that a name cannot be one of a host.
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
    """Returns a push of no job, for a role that may do nothing but push."""
    return sql.SQL("INSERT INTO {} (id) SELECT gen_random_uuid() WHERE false").format(
        sql.Identifier(f"{prefix}jobs")
    )


def failed_start(database: str, error: BaseException) -> WorkersError:
    """Returns the one line for an error of a database that answered at first."""
    otherwise = "look at its log and its load, and start again"
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
