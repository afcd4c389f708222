"""Finds the database of the workers and connects to it."""

import os
import re
from collections.abc import Callable
from ipaddress import IPv6Address

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import InsufficientPrivilege, ReadOnlySqlTransaction
from psycopg.rows import TupleRow

from chancy_runtime.postgres.connections import DroppableConnection
from chancy_runtime.errors import WorkersError

CONNECT_TIMEOUT = 5
URL_FORM = "postgresql://user:password@host:5432/database"
# What mends the start, by what the reason for a refused connection holds.
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
    "resolve host|idna": "correct the host in the URL",
    "": "start it, or point WORKERS_DATABASE_URL at one that answers",
}


def get_secret_value(name: str) -> str:
    """Returns the environment variable of a secret: "A-NAME" is kept in A_NAME.

    Raises:
        LookupError: The variable is not set.
    """
    variable = name.upper().replace("-", "_")
    try:
        return os.environ[variable]
    except KeyError:
        raise LookupError(f"the environment variable {variable} is not set") from None


def database_url(secret: str, get_value: Callable[[str], str]) -> str:
    """Returns WORKERS_DATABASE_URL when it is set, otherwise the secret's value.

    Args:
        secret: The name of the secret that holds the URL.
        get_value: Returns the value of a secret.

    Raises:
        WorkersError: There is no URL, or it is not one that PostgreSQL's libpq reads.
    """
    if url := os.environ.get("WORKERS_DATABASE_URL", ""):
        source = "WORKERS_DATABASE_URL"
    else:
        source = f"the secret {secret}"
        try:
            url = get_value(secret)
        except Exception as error:
            raise WorkersError(
                f"there is no database URL for the workers, {source} cannot be read "
                f"({error}): set it, or WORKERS_DATABASE_URL, to {URL_FORM}"
            ) from error
    if not isinstance(url, str):
        raise WorkersError(
            f"{source} is a {type(url).__name__}, not a text: correct it"
        )
    url = url.strip()
    scheme, separator, _ = url.partition("://")
    if not url or (separator and scheme not in ("postgresql", "postgres")):
        raise WorkersError(f"{source} is not of the form {URL_FORM}: correct it")
    if not _is_parsed_as_meant(url):
        # libpq's own message repeats the URL, and with it the password.
        raise WorkersError(
            f"{source} cannot be parsed: write it as {URL_FORM}, with the special "
            "characters of the password percent-encoded"
        )
    return url


def _is_parsed_as_meant(url: str) -> bool:
    """Whether libpq reads the URL, and takes no part of the password for the target.

    A password with @, / or : in it spills over into host, port or database, which
    messages repeat.
    """
    try:
        parameters = conninfo_to_dict(url)
    except (psycopg.ProgrammingError, UnicodeError):
        return False
    hosts = f"{parameters.get('host', '')},{parameters.get('hostaddr', '')}".split(",")
    return (
        all(map(_is_host, hosts))
        and re.fullmatch("[0-9,]*", str(parameters.get("port", ""))) is not None
        and "@" not in str(parameters.get("dbname", ""))
    )


def _is_host(text: str) -> bool:
    """Whether a text is a name, an address or the folder of a socket."""
    try:
        return bool(IPv6Address(text))
    except ValueError:
        return text.startswith("/") or not re.search("[:@]", text)


def target_of(url: str) -> str:
    """Returns "host:port/database" of a URL; user and password stay out of it."""
    parameters = conninfo_to_dict(url)
    host = parameters.get("host") or parameters.get("hostaddr") or "localhost"
    port = parameters.get("port") or 5432
    return f"{host}:{port}/{parameters.get('dbname') or parameters.get('user') or ''}"


def target(connection: AsyncConnection[TupleRow]) -> str:
    """Returns "host:port/database" of a connection."""
    info = connection.info
    return f"{info.host or 'localhost'}:{info.port}/{info.dbname}"


async def connect(url: str) -> AsyncConnection[TupleRow]:
    """Opens one connection, or says in one line why there is none.

    Raises:
        WorkersError: The server does not answer or refuses, with its own reason.
    """
    try:
        return await DroppableConnection.connect(
            make_conninfo(url, connect_timeout=CONNECT_TIMEOUT), autocommit=True
        )
    except (psycopg.Error, UnicodeError) as error:
        reason = reason_of(error)
        way_out = next(
            way_out
            for signs, way_out in _WAYS_OUT.items()
            if any(sign in reason.lower() for sign in signs.split("|"))
        )
        raise WorkersError(
            f"cannot connect to the database at {target_of(url)} ({reason}): {way_out}"
        ) from error


def reason_of(error: BaseException) -> str:
    """Returns the text of an error in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def harmless_write(prefix: str) -> sql.Composed:
    """Returns a statement that changes no row, but only works where one could change."""
    return sql.SQL("UPDATE {} SET worker_id = worker_id WHERE false").format(
        sql.Identifier(f"{prefix}workers")
    )


def failed_start(database: str, error: BaseException) -> WorkersError:
    """Returns the one line for an error of a database that answered at first."""
    match error:
        case ReadOnlySqlTransaction():
            way_out = "point the URL at the primary, or end its read-only mode"
        case InsufficientPrivilege():
            way_out = "connect as the owner of the tables"
        case _:
            way_out = "look at its log and its load, and start again"
    return WorkersError(
        f"the workers cannot start on the database {database} ({reason_of(error)}): "
        f"{way_out}"
    )
