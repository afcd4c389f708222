"""The URL of the database that the workers use."""

import os
import re
from collections.abc import Callable
from ipaddress import IPv6Address
from urllib.parse import parse_qs

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict

from chancy_runtime.errors import WorkersError, show_start_errors_as_one_line
from chancy_runtime.modes import VARIABLE, Mode, workers_mode

# What to do about URL parameters of other libraries.
_INSTEAD = {
    "connection_limit": "take it out; CHANCY_MAX_POOL_SIZE is the limit of the workers",
    "pool_timeout": "take it out",
    "schema": "write options=-csearch_path%3D<schema> instead",
    "ssl": "write sslmode=require instead",
    "sslaccept": "write sslmode=verify-full, or sslmode=require, instead",
}
# The driver asyncpg has another name for sslmode, with the same values.
_SSL_OF_ASYNCPG = re.compile(
    "(?<=[?&])ssl=(?=(disable|allow|prefer|require|verify-ca|verify-full)(&|$))"
)
URL_FORM = "postgresql://user:password@host:5432/database"
_TESTS = f"for tests without a database set {VARIABLE} to off"
# The URL for a process that connects to no database; no host can have this name.
_NO_DATABASE = "postgresql://workers-are-off.invalid/none"


def get_secret_value(name: str) -> str:
    """Returns a secret from the environment: the secret "A-NAME" is the variable A_NAME.

    Services that keep their secrets elsewhere pass a function of their own to
    `database_url`.

    Raises:
        LookupError: The variable is not set.
    """
    variable = name.upper().replace("-", "_")
    try:
        return os.environ[variable]
    except KeyError:
        raise LookupError(f"the environment variable {variable} is not set") from None


def database_url(secret: str, get_value: Callable[[str], str]) -> str:
    """Returns WORKERS_DATABASE_URL if it is set, otherwise the secret's value.

    The house rule: Supabase's session pooler in production, a local server elsewhere. If
    WORKERS_MODE is off, no URL is needed, and the secret is read from the environment only.

    Args:
        secret: The name of the secret that holds the URL.
        get_value: Returns the value of a secret.

    Raises:
        WorkersError: There is no URL, or libpq cannot read it.
    """
    show_start_errors_as_one_line()
    if workers_mode() is not Mode.OFF:
        return _database_url(secret, get_value)
    try:
        return _database_url(secret, get_secret_value)
    except WorkersError:
        return _NO_DATABASE


def _database_url(secret: str, get_value: Callable[[str], str]) -> str:
    if url := os.environ.get("WORKERS_DATABASE_URL", ""):
        source = "WORKERS_DATABASE_URL"
    else:
        source = f"the secret {secret}"
        try:
            url = get_value(secret)
        except Exception as error:
            raise WorkersError(
                f"there is no database URL for the workers, because {source} cannot be read "
                f"({error}): set it, or WORKERS_DATABASE_URL, to {URL_FORM}; {_TESTS}"
            ) from error
    if not isinstance(url, str):
        raise WorkersError(f"{source} is a {type(url).__name__}, not text: correct it")
    url = _as_libpq_reads_it(url)
    scheme, separator, _ = url.partition("://")
    if not url or (separator and scheme != "postgresql"):
        raise WorkersError(
            f"{source} is not of the form {URL_FORM}: correct it; {_TESTS}"
        )
    for name in _unknown_parameters(url):
        instead = _INSTEAD.get(name, "take it out")
        raise WorkersError(
            f"{source} has the parameter {name}, which PostgreSQL does not have: {instead}"
        )
    if not _is_parsed_as_meant(url):
        # libpq's own message repeats the URL, and with it the password.
        raise WorkersError(
            f"{source} cannot be parsed: write it as {URL_FORM}, with the special "
            "characters of the password percent-encoded"
        )
    return url


def _as_libpq_reads_it(text: str) -> str:
    """Returns a URL that hosters or other libraries have written in the form of libpq.

    It removes quotes and line ends around the URL, and the names of Java's and SQLAlchemy's
    drivers.
    """
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'":
        text = text[1:-1].strip()
    driver = re.match(r"(jdbc:)?postgres(ql)?(\+\w+)?://", text, re.I)
    if driver is None:
        return text
    rest = text[driver.end() :]
    if driver[3] == "+asyncpg":
        rest = _SSL_OF_ASYNCPG.sub("sslmode=", rest)
    return f"postgresql://{rest}"


def _unknown_parameters(url: str) -> list[str]:
    """Returns the names of the parameters in the URL that libpq does not know."""
    known = {each.keyword.decode() for each in pq.Conninfo.get_defaults()}
    query = url.partition("?")[2] if "://" in url else ""
    # No message may repeat a part of a password.
    if "@" in query or "password" in query:
        known |= set(parse_qs(query, keep_blank_values=True)) - _INSTEAD.keys()
    return [
        name for name in parse_qs(query, keep_blank_values=True) if name not in known
    ]


def _is_parsed_as_meant(url: str) -> bool:
    """Whether libpq can read the URL and reads no part of the password as the target.

    A password with @, / or : in it could become part of the host, port or database, which
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
    """Whether a text is a host name, an address or the folder of a socket."""
    try:
        return bool(IPv6Address(text))
    except ValueError:
        return text.startswith("/") or not re.search("[:@]", text)


def target_of(url: str) -> str:
    """Returns "host:port/database" of a URL, without user and password."""
    parameters = conninfo_to_dict(url)
    host = parameters.get("host") or parameters.get("hostaddr") or "localhost"
    port = parameters.get("port") or 5432
    return f"{host}:{port}/{parameters.get('dbname') or parameters.get('user') or ''}"
