"""Creates Chancy's tables and the library's indexes, and checks them before a start."""

from dataclasses import dataclass

import psycopg
from chancy import Chancy
from chancy.migrate import Migrator
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from chancy_runtime.errors import WorkersError
from chancy_runtime.postgres import claim_indexes
from chancy_runtime.postgres.connecting import connect, reason_of, target, way_out_of
from chancy_runtime.postgres.security import (
    PUBLIC_ROLES,
    close_tables,
    find_open_tables,
    refuse_hidden_table,
)

# The tables that Chancy 0.26 creates without plugins; each plugin names its own tables.
CORE_TABLES = ("jobs", "leader", "queue_rate_limits", "queues", "workers")
# Chancy's table of the applied migrations.
VERSION_TABLE = "schema_version"


@dataclass(frozen=True, kw_only=True)
class Part:
    """Chancy itself, one of its plugins or this library, with its migrations.

    Args:
        name: The name in the table of versions.
        applied: The number of the last applied migration.
        known: The number of the newest migration that the installed version has.
        migrator: Chancy's migrator; the library has none, its indexes are built afterwards.
        note: More text for `status`.
    """

    name: str
    applied: int
    known: int
    tables: tuple[str, ...] = ()
    migrator: Migrator | None = None
    note: str = ""

    @property
    def due(self) -> range:
        """The migrations that are not applied yet; empty if the tables are newer."""
        return range(self.applied + 1, self.known + 1)

    def __str__(self) -> str:
        versions = "v1" if self.applied == 1 else f"v1 to v{self.applied}"
        text = f"{self.name}: {versions if self.applied else 'nothing'} applied"
        if self.due:
            text += f", due: {', '.join(f'v{number}' for number in self.due)}"
        elif self.applied > self.known:
            text += f" by a later version (this one has v{self.known})"
        return text + self.note


def version_table(chancy: Chancy) -> str:
    """Returns the name of VERSION_TABLE in a service."""
    return f"{chancy.prefix}{VERSION_TABLE}"


async def parts_of(connection: AsyncConnection[TupleRow], chancy: Chancy) -> list[Part]:
    """Returns Chancy, its plugins that have tables, and this library; creates nothing."""
    core = Migrator("chancy", "chancy.migrations", prefix=chancy.prefix)
    migrators: dict[Migrator, tuple[str, ...]] = {core: CORE_TABLES}
    for plugin in chancy.plugins.values():
        if migrator := plugin.migrator(chancy):
            migrators[migrator] = tuple(plugin.get_tables())
    applied: dict[str, int] = {}
    if await _existing(connection, [version_table(chancy)]):
        query = sql.SQL("SELECT version_of, version FROM {}")
        cursor = await connection.execute(
            query.format(sql.Identifier(version_table(chancy)))
        )
        applied = dict(await cursor.fetchall())
    parts = [
        Part(
            name=migrator.key,
            applied=applied.get(migrator.key, 0),
            known=len(migrator.discover_all_migrations()),
            tables=tuple(f"{chancy.prefix}{table}" for table in tables),
            migrator=migrator,
        )
        for migrator, tables in migrators.items()
    ]
    return [*parts, await _library(connection, chancy, applied)]


async def _library(
    connection: AsyncConnection[TupleRow], chancy: Chancy, applied: dict[str, int]
) -> Part:
    """Returns the library's own part; it counts as applied if its indexes can be used."""
    version = applied.get(claim_indexes.KEY, 0)
    known = claim_indexes.VERSION
    if version <= known and not await claim_indexes.are_built(
        connection, chancy.prefix
    ):
        version = 0
    same = await claim_indexes.same_indexes(connection, chancy.prefix)
    note = "".join(f"; {other} is the same index as {ours}" for ours, other in same)
    return Part(name=claim_indexes.KEY, applied=version, known=known, note=note)


def tables_of(chancy: Chancy, parts: list[Part]) -> list[str]:
    """Returns the names of all tables, including those that are not created yet."""
    return [version_table(chancy), *(table for part in parts for table in part.tables)]


async def migrate(chancy: Chancy) -> None:
    """Creates or upgrades the tables and secures them, in one transaction.

    The library's indexes are built afterwards, while the queues stay in use. It may always
    run: when nothing is due, when two run at the same time, and when a later version has
    migrated already, whose tables stay as they are.

    Raises:
        WorkersError: The database does not answer, row level security hides the tables
            from this user, one of the tables exists already and does not belong to Chancy,
            PostgreSQL refuses, or an open transaction blocks the build of an index.
    """
    async with await connect(chancy.dsn) as connection:
        try:
            async with connection.transaction():
                await connection.execute(
                    "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))",
                    [f"migrate {chancy.prefix}"],
                )
                await refuse_hidden_table(connection, version_table(chancy))
                await _refuse_tables_of_others(connection, chancy)
                parts = await parts_of(connection, chancy)
                before = await _with_prefix(connection, chancy)
                for part in parts:
                    if part.migrator and part.due:
                        await part.migrator.migrate(connection)
                created = await _with_prefix(connection, chancy) - before
                await close_tables(connection, created.union(tables_of(chancy, parts)))
        except psycopg.Error as error:
            owner = (
                "connect as the owner of the tables, or as a user who may create them"
            )
            raise WorkersError(
                f"PostgreSQL refused the migration ({reason_of(error)}), so everything was "
                f"rolled back: {way_out_of(error, owner)}"
            ) from error
        if any(part.due for part in await parts_of(connection, chancy)):
            await claim_indexes.build(connection, chancy, version_table(chancy))


async def check_tables(
    chancy: Chancy, connection: AsyncConnection[TupleRow], *, remedy: str
) -> None:
    """Makes sure that the database holds the tables that Chancy needs; writes nothing.

    Args:
        remedy: How to migrate, for the messages.

    Raises:
        WorkersError: The tables are missing or too old, or row level security hides them
            from this user.
    """
    await refuse_hidden_table(connection, version_table(chancy))
    parts = await parts_of(connection, chancy)
    if due := [str(part) for part in parts if part.migrator and part.due]:
        raise WorkersError(
            f"the tables {chancy.prefix}* at {target(connection)} are missing or too "
            f"old ({'; '.join(due)}): {remedy}"
        )
    if any(part.due for part in parts):
        chancy.log.warning(
            "The tables %s* at %s lack the library's indexes, so each claim reads all "
            "waiting jobs and deep queues are slow: %s, then start the workers again",
            *(chancy.prefix, target(connection), remedy),
        )
    if found := await find_open_tables(connection, tables_of(chancy, parts)):
        chancy.log.warning(
            "The roles %s of Supabase's public API can reach %s at %s, and with them "
            "run any function of the service: %s",
            *(" and ".join(PUBLIC_ROLES), ", ".join(found), target(connection), remedy),
        )


async def _refuse_tables_of_others(
    connection: AsyncConnection[TupleRow], chancy: Chancy
) -> None:
    """Makes sure that existing tables belong to Chancy: a migration could drop others.

    Raises:
        WorkersError: A table with one of the names does not belong to Chancy.
    """
    cursor = await connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(quote_ident(%s))",
        [version_table(chancy)],
    )
    columns = {name for (name,) in await cursor.fetchall()}
    foreign = [version_table(chancy)] if columns and "version_of" not in columns else []
    if not foreign:
        for part in await parts_of(connection, chancy):
            if not part.applied:
                foreign += await _existing(connection, list(part.tables))
    if foreign:
        raise WorkersError(
            f"{foreign[0]} exists at {target(connection)} and does not belong to Chancy: "
            f"rename it, or give the workers another prefix than {chancy.prefix}"
        )


async def _existing(
    connection: AsyncConnection[TupleRow], names: list[str]
) -> list[str]:
    cursor = await connection.execute(
        "SELECT name FROM unnest(%s::text[]) AS name "
        "WHERE to_regclass(quote_ident(name)) IS NOT NULL",
        [names],
    )
    return [name for (name,) in await cursor.fetchall()]


async def _with_prefix(
    connection: AsyncConnection[TupleRow], chancy: Chancy
) -> set[str]:
    cursor = await connection.execute(
        "SELECT tablename FROM pg_tables "
        "WHERE schemaname = current_schema() AND starts_with(tablename, %s)",
        [chancy.prefix],
    )
    return {name for (name,) in await cursor.fetchall()}
