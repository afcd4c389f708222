"""Databases on a test's server, and what is in them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import psycopg
from psycopg.conninfo import conninfo_to_dict


@contextmanager
def database(server_url: str) -> Iterator[str]:
    """An empty database on the server, dropped afterwards; yields its URL."""
    name = f"template_test_{uuid4().hex}"
    # A test may restart the server, so it may be another process at the end.
    query(server_url, f"CREATE DATABASE {name}")
    try:
        yield url_of(server_url, name)
    finally:
        query(server_url, f"DROP DATABASE {name} WITH (FORCE)")


def url_of(server_url: str, name: str, user: str | None = None) -> str:
    """The URL of another database, or for another user, on the same server."""
    parameters = {**conninfo_to_dict(server_url), "dbname": name}
    if user:
        parameters = {**parameters, "user": user}
    user_part = f"{parameters.get('user', '')}"
    if password := parameters.get("password"):
        user_part += f":{password}"
    host, port = str(parameters.get("host", "localhost")), parameters.get("port", 5432)
    if host.startswith("/"):
        return f"postgresql://{user_part}@/{name}?host={host}&port={port}"
    return f"postgresql://{user_part}@{host}:{port}/{name}"


def query(url: str, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Runs one statement in a connection of its own; returns its rows."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement, parameters or None)
        return cursor.fetchall() if cursor.description else []


def tables(url: str) -> list[str]:
    """The tables of a database, in order."""
    rows = query(
        url,
        "SELECT tablename FROM pg_tables WHERE schemaname NOT IN "
        "('pg_catalog', 'information_schema') ORDER BY tablename",
    )
    return [name for (name,) in rows]


def connections_to(url: str) -> int:
    """The connections to a database, without that of this query."""
    ((number,),) = query(
        url,
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    return int(number)
