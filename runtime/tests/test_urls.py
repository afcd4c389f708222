"""URLs of hosters and other libraries: each works, or the error names the problem."""

import asyncio
import functools
from collections.abc import Iterator

import asyncpg  # type: ignore[import-untyped]
import pytest
from chancy_runtime import WorkersError, database_url
from chancy_runtime.postgres.connecting import _way_out, connect
from chancy_runtime.testing import _of_database
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from harness import databases
from harness.servers import Cluster

GOOD = "postgresql://me:secret@db.example.com:6432/app"


def read(text: str) -> str:
    return database_url("DATABASE", lambda _: text)


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        f"{GOOD}\n",
        f'"{GOOD}"',
        f"'{GOOD}'\n",
        GOOD.replace("postgresql://", "postgres://"),
        GOOD.replace("postgresql://", "POSTGRESQL://"),
        GOOD.replace("postgresql://", "postgresql+asyncpg://"),
        GOOD.replace("postgresql://", "postgresql+psycopg://"),
        GOOD.replace("postgresql://", "postgresql+psycopg_async://"),
        GOOD.replace("postgresql://", "postgresql+psycopg2://"),
        "jdbc:postgresql://db.example.com:6432/app?user=me&password=secret",
        "host=db.example.com port=6432 dbname=app user=me password=secret",
    ],
)
def test_each_form_is_taken(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORKERS_DATABASE_URL", raising=False)

    parameters = conninfo_to_dict(read(text))

    assert {
        name: str(parameters.get(name))
        for name in ("host", "port", "dbname", "user", "password")
    } == {
        "host": "db.example.com",
        "port": "6432",
        "dbname": "app",
        "user": "me",
        "password": "secret",
    }


def test_the_name_that_asyncpg_has_for_sslmode_is_taken_in_its_urls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So SQLAlchemy's engine and the workers can share a secret."""
    monkeypatch.delenv("WORKERS_DATABASE_URL", raising=False)
    url = GOOD.replace("postgresql://", "postgresql+asyncpg://")

    for query in ("ssl=verify-full", "connect_timeout=5&ssl=verify-full"):
        assert read(f"{url}?{query}") == f"{GOOD}?{query.replace('ssl=', 'sslmode=')}"
    with pytest.raises(WorkersError, match="sslmode=require"):
        read(f"{url}?ssl=true")


@pytest.mark.parametrize(
    ("query", "name", "instead"),
    [
        ("pgbouncer=true", "pgbouncer", "take it out"),
        ("sslmode=require&connection_limit=1", "connection_limit", "MAX_POOL_SIZE"),
        ("schema=public", "schema", "options=-csearch_path%3D<schema>"),
        ("supa=base-pooler.x", "supa", "take it out"),
        ("ssl=require", "ssl", "sslmode=require"),
    ],
)
def test_a_parameter_of_another_library_is_named_with_its_replacement(
    query: str, name: str, instead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORKERS_DATABASE_URL", raising=False)

    with pytest.raises(WorkersError) as failure:
        read(f"{GOOD}?{query}")

    assert f"has the parameter {name}, which" in str(failure.value)
    assert instead in str(failure.value)
    assert "secret" not in str(failure.value).replace("the secret DATABASE", "")


def test_a_part_of_a_password_in_the_query_is_not_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("WORKERS_DATABASE_URL", raising=False)

    with pytest.raises(WorkersError) as failure:
        read("postgresql://db.example.com/app?user=me&password=ab&cdef")

    assert "cannot be parsed" in str(failure.value)
    assert "cdef" not in str(failure.value)


@pytest.mark.parametrize("password", ["p?ss=word", "p?ssword", "p[ss?w=rd"])
def test_no_part_of_a_password_is_taken_for_a_parameter(
    password: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORKERS_DATABASE_URL", raising=False)

    url = read(GOOD.replace("secret", password))

    assert conninfo_to_dict(url)["password"] == password


@pytest.mark.parametrize(
    "query", ["sslmode=require", "application_name=a&options=-cx%3D1"]
)
def test_a_parameter_of_postgresql_is_taken(
    query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORKERS_DATABASE_URL", raising=False)

    assert read(f"{GOOD}?{query}") == f"{GOOD}?{query}"


@pytest.mark.parametrize(
    ("query", "way_out"),
    [
        ("sslmode=require", "correct sslmode, sslrootcert"),
        ("sslmode=no-verify", "correct sslmode, sslrootcert"),
        ("service=nowhere", "correct service in the URL, or PGSERVICE"),
        ("channel_binding=require", "correct that parameter in the URL"),
        ("target_session_attrs=standby", "correct that parameter in the URL"),
        ("options=-cnonsense%3D1", "correct that parameter in the URL"),
        ("dbname=nowhere", "create it with createdb"),
        ("dbname=shut", "start again when it takes connections"),
        ("dbname=closed&user=someone", "grant CONNECT on it"),
    ],
)
def test_a_refused_connection_does_not_end_with_the_advice_for_a_server_that_is_down(
    query: str, way_out: str, server: Cluster, databases_that_refuse: None
) -> None:
    with pytest.raises(WorkersError) as failure:
        asyncio.run(connect(f"{server.url()}?{query}"))

    assert f"): {way_out}" in str(failure.value)


@pytest.fixture(scope="module")
def databases_that_refuse(server: Cluster) -> Iterator[None]:
    run = functools.partial(databases.query, server.url())
    run("CREATE ROLE someone LOGIN")
    run("CREATE DATABASE shut ALLOW_CONNECTIONS false")
    run("CREATE DATABASE closed")
    run("REVOKE CONNECT ON DATABASE closed FROM PUBLIC")
    yield
    for name in ("DATABASE shut", "DATABASE closed", "ROLE someone"):
        run(f"DROP {name}")


@pytest.mark.parametrize(
    ("reason", "way_out"),
    [
        ("FATAL: the database system is starting up", "start again when"),
        ('connection on socket "/run/5432" failed: Permission denied', "start it, or"),
        ("could not open certificate file: Permission denied", "correct sslmode"),
    ],
)
def test_a_reason_that_needs_another_machine_has_its_own_way_out(
    reason: str, way_out: str
) -> None:
    assert _way_out(reason).startswith(way_out)


@pytest.mark.parametrize(
    "server",
    [
        "postgresql://me:s%40cret@db:6432/postgres?sslmode=require",
        "postgres://me:s%40cret@db:6432?sslmode=require",
        "postgresql:///?host=db&port=6432&user=me&password=s%40cret&sslmode=require",
        "host=db port=6432 user=me password=s@cret sslmode=require",
    ],
)
def test_a_database_of_a_test_is_on_the_server_of_the_tests(server: str) -> None:
    assert conninfo_to_dict(_of_database(server, "a_test")) == {
        "host": "db",
        "port": "6432",
        "user": "me",
        "password": "s@cret",
        "sslmode": "require",
        "dbname": "a_test",
    }


def test_a_server_without_parameters_has_databases_too() -> None:
    url = _of_database("postgresql://me:a#b@db", "a_test")
    assert url == "postgresql://me:a#b@db/a_test"


@pytest.mark.anyio
async def test_other_libraries_read_the_url_of_a_test(database_url: str) -> None:
    url = make_url(database_url)
    for driver in ("asyncpg", "psycopg"):
        engine = create_async_engine(url.set(drivername=f"postgresql+{driver}"))
        async with engine.connect() as connection:
            name = await connection.scalar(text("SELECT current_database()"))
        await engine.dispose()
        assert name == url.database
    connection = await asyncpg.connect(database_url)
    await connection.close()
