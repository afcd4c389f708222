"""Creates Chancy's tables, closes them to Supabase's public roles, and looks at them."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import psycopg
from chancy import Chancy
from chancy.migrate import Migrator
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from .chancy_database import connect
from .chancy_errors import WorkersError

# What Chancy 0.26 creates without plugins; each plugin names its own.
CORE_TABLES = ("jobs", "leader", "queue_rate_limits", "queues", "workers")
VERSION_TABLE = "schema_version"
# Supabase's roles behind the public API: https://supabase.com/docs/guides/database/postgres/roles
PUBLIC_ROLES = ("anon", "authenticated")

Connection = AsyncConnection[TupleRow]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Chancy itself or one of its plugins, with the tables and migrations it brings."""

    migrator: Migrator
    tables: tuple[str, ...]
    applied: int

    @property
    def available(self) -> int:
        return len(self.migrator.discover_all_migrations())

    def __str__(self) -> str:
        due = range(self.applied + 1, self.available + 1)
        return (
            f"{self.migrator.key:<12}"
            + (f"v1 to v{self.applied} applied" if self.applied else "nothing applied")
            + (f", due: {', '.join(f'v{number}' for number in due)}" if due else "")
        )


async def migrate(chancy: Chancy) -> None:
    """Creates or upgrades the tables and secures them, all of it or nothing.

    Harmless when there is nothing to do, and when two run at once.

    Raises:
        WorkersError: The database does not answer, a table of somebody else has one
            of the names, or PostgreSQL refuses.
    """
    async with await connect(chancy.dsn) as connection:
        try:
            async with connection.transaction():
                await connection.execute(
                    "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))",
                    [f"migrate {chancy.prefix}"],
                )
                await _refuse_tables_of_others(connection, chancy)
                before = await _tables_of_schema(connection)
                parts = await parts_of(connection, chancy)
                for part in parts:
                    await part.migrator.migrate(connection)
                created = await _tables_of_schema(connection) - before
                await _close_to_public_roles(
                    connection, {*_names(chancy, parts), *created}
                )
        except psycopg.Error as error:
            reason = " ".join(str(error).split())
            raise WorkersError(
                f"PostgreSQL refused the migration ({reason}) and everything was rolled "
                "back: connect as the owner of the tables, or as who may create them"
            ) from error


async def check_tables(chancy: Chancy) -> None:
    """Makes sure that the database answers and holds the tables that Chancy needs.

    Chancy's pool opens in the background and keeps the server's reason to itself, so
    this asks over a connection of its own. It writes nothing.

    Raises:
        WorkersError: The database is down, its tables are missing or too old, or
            row security hides them from this user.
    """
    async with await connect(chancy.dsn) as connection:
        await _refuse_hidden_tables(connection, chancy)
        parts = await parts_of(connection, chancy)
        if due := [part for part in parts if part.applied < part.available]:
            raise WorkersError(
                f"the tables {chancy.prefix}* at {target(connection)} are missing or too "
                f"old ({'; '.join(' '.join(str(part).split()) for part in due)}): "
                f"run python -m {__package__} migrate"
            )
        if open_tables := await tables_open_to_public(connection, chancy):
            logging.getLogger(__package__).warning(
                "The roles %s of Supabase's public API can reach %s at %s, and with them "
                "run any function of the service: run python -m %s migrate",
                " and ".join(PUBLIC_ROLES),
                ", ".join(open_tables),
                target(connection),
                __package__,
            )


async def parts_of(connection: Connection, chancy: Chancy) -> list[Part]:
    """Chancy and its plugins, as far as they have tables; creates nothing."""
    version_table = sql.Identifier(f"{chancy.prefix}{VERSION_TABLE}")
    applied: dict[str, int] = {}
    if await _existing(connection, [f"{chancy.prefix}{VERSION_TABLE}"]):
        query = sql.SQL("SELECT version_of, version FROM {}").format(version_table)
        applied = dict(await (await connection.execute(query)).fetchall())
    core = Migrator("chancy", "chancy.migrations", prefix=chancy.prefix)
    migrators: list[tuple[Migrator, tuple[str, ...]]] = [(core, CORE_TABLES)]
    for plugin in chancy.plugins.values():
        if migrator := plugin.migrator(chancy):
            migrators.append((migrator, tuple(plugin.get_tables())))
    return [
        Part(migrator=migrator, tables=tables, applied=applied.get(migrator.key, 0))
        for migrator, tables in migrators
    ]


async def tables_open_to_public(connection: Connection, chancy: Chancy) -> list[str]:
    """The tables that a public role may read, write or empty."""
    query = """
        SELECT c.relname
        FROM unnest(%(tables)s::text[]) AS name
        JOIN pg_class c ON c.oid = to_regclass(quote_ident(name))
        WHERE EXISTS (
            SELECT FROM pg_roles r
            WHERE r.rolname = ANY(%(roles)s)
            AND (
                has_table_privilege(r.oid, c.oid, 'TRUNCATE')
                OR NOT c.relrowsecurity
                AND has_table_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE, DELETE')
            )
        )
        ORDER BY c.relname
    """
    tables = _names(chancy, await parts_of(connection, chancy))
    cursor = await connection.execute(
        query, {"tables": tables, "roles": list(PUBLIC_ROLES)}
    )
    return [name for (name,) in await cursor.fetchall()]


def target(connection: Connection) -> str:
    """Returns "host:port/database" of a connection."""
    info = connection.info
    return f"{info.host or 'localhost'}:{info.port}/{info.dbname}"


def _names(chancy: Chancy, parts: Iterable[Part]) -> list[str]:
    names = [VERSION_TABLE, *(name for part in parts for name in part.tables)]
    return [f"{chancy.prefix}{name}" for name in names]


async def _existing(connection: Connection, names: list[str]) -> list[str]:
    cursor = await connection.execute(
        "SELECT name FROM unnest(%s::text[]) AS name "
        "WHERE to_regclass(quote_ident(name)) IS NOT NULL",
        [names],
    )
    return [name for (name,) in await cursor.fetchall()]


async def _tables_of_schema(connection: Connection) -> set[str]:
    cursor = await connection.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = current_schema()"
    )
    return {name for (name,) in await cursor.fetchall()}


async def _refuse_tables_of_others(connection: Connection, chancy: Chancy) -> None:
    """Stops before Chancy fails half-way over, or drops, a table that is not its own."""
    way_out = (
        f"rename it, or give the workers another prefix than {chancy.prefix} "
        "(copier update --trust -d prefix=…)"
    )
    version_table = f"{chancy.prefix}{VERSION_TABLE}"
    cursor = await connection.execute(
        "SELECT array_agg(attname::text) FROM pg_attribute "
        "WHERE attrelid = to_regclass(quote_ident(%s)) AND attnum > 0",
        [version_table],
    )
    row = await cursor.fetchone()
    if row and row[0] and not {"version_of", "version"} <= set(row[0]):
        raise WorkersError(f"the table {version_table} is not Chancy's: {way_out}")
    for part in await parts_of(connection, chancy):
        names = [f"{chancy.prefix}{name}" for name in part.tables]
        if not part.applied and (found := await _existing(connection, names)):
            raise WorkersError(f"the table {found[0]} is not Chancy's: {way_out}")


async def _close_to_public_roles(connection: Connection, tables: set[str]) -> None:
    """Enables row level security and takes the grants of Supabase's defaults back.

    The owner of the tables goes past row level security, everybody else needs a
    policy, and there is none. A second run finds nothing to do and takes no lock.
    """
    cursor = await connection.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() "
        "AND tablename = ANY(%s) AND NOT rowsecurity ORDER BY tablename",
        [list(tables)],
    )
    for (table,) in await cursor.fetchall():
        await connection.execute(
            sql.SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(
                sql.Identifier(table)
            )
        )
    grants = """
        SELECT DISTINCT c.relname, c.relkind = 'S', r.rolname
        FROM pg_class t
        LEFT JOIN pg_depend d ON d.refobjid = t.oid AND d.deptype IN ('a', 'i')
        JOIN pg_class c ON c.oid = t.oid OR (c.oid = d.objid AND c.relkind = 'S')
        CROSS JOIN LATERAL aclexplode(c.relacl) AS acl
        JOIN pg_roles r ON r.oid = acl.grantee
        WHERE t.relnamespace = current_schema()::regnamespace
        AND t.relname = ANY(%s) AND r.rolname = ANY(%s)
        ORDER BY c.relname, r.rolname
    """
    cursor = await connection.execute(grants, [list(tables), list(PUBLIC_ROLES)])
    for name, is_sequence, role in await cursor.fetchall():
        await connection.execute(
            sql.SQL("REVOKE ALL ON {} {} FROM {}").format(
                sql.SQL("SEQUENCE" if is_sequence else "TABLE"),
                sql.Identifier(name),
                sql.Identifier(role),
            )
        )


async def _refuse_hidden_tables(connection: Connection, chancy: Chancy) -> None:
    """Row security shows an empty table to who is not its owner: jobs would never run."""
    cursor = await connection.execute(
        "SELECT current_user, tableowner FROM pg_tables "
        "WHERE schemaname = current_schema() AND tablename = %s "
        "AND row_security_active(to_regclass(quote_ident(tablename)))",
        [f"{chancy.prefix}{VERSION_TABLE}"],
    )
    if row := await cursor.fetchone():
        user, owner = row
        raise WorkersError(
            f"row security hides {chancy.prefix}* at {target(connection)} from "
            f"{user}: connect as the owner {owner}, or ALTER ROLE {user} BYPASSRLS"
        )
