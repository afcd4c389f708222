"""Creates Chancy's tables, and checks them before the workers start."""

from dataclasses import dataclass

import psycopg
from chancy import Chancy
from chancy.migrate import Migrator
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from chancy_runtime.errors import WorkersError
from chancy_runtime.postgres.connecting import connect, reason_of, target
from chancy_runtime.postgres.security import (
    PUBLIC_ROLES,
    close_tables,
    find_open_tables,
    refuse_hidden_table,
)

# What Chancy 0.26 creates without plugins; each plugin names its own.
CORE_TABLES = ("jobs", "leader", "queue_rate_limits", "queues", "workers")


@dataclass(frozen=True, kw_only=True)
class Part:
    """Chancy itself or one of its plugins, with its tables and migrations."""

    migrator: Migrator
    tables: tuple[str, ...]
    applied: int

    @property
    def known(self) -> int:
        """The newest migration that the installed version has."""
        return len(self.migrator.discover_all_migrations())

    @property
    def due(self) -> range:
        """The migrations that are not applied yet; none of tables that are newer."""
        return range(self.applied + 1, self.known + 1)

    def __str__(self) -> str:
        text = f"{self.migrator.key}: " + (
            f"v1 to v{self.applied} applied" if self.applied else "nothing applied"
        )
        if self.due:
            text += f", due: {', '.join(f'v{number}' for number in self.due)}"
        elif self.applied > self.known:
            text += f" by a later version, since this one knows v{self.known}"
        return text


def version_table(chancy: Chancy) -> str:
    """The table in which Chancy keeps what is applied."""
    return f"{chancy.prefix}schema_version"


async def parts_of(connection: AsyncConnection[TupleRow], chancy: Chancy) -> list[Part]:
    """Returns Chancy and those of its plugins that have tables; creates nothing."""
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
    return [
        Part(
            migrator=migrator,
            tables=tuple(f"{chancy.prefix}{table}" for table in tables),
            applied=applied.get(migrator.key, 0),
        )
        for migrator, tables in migrators.items()
    ]


def tables_of(chancy: Chancy, parts: list[Part]) -> list[str]:
    """Returns the names of all tables, also of those that are not created yet."""
    return [version_table(chancy), *(table for part in parts for table in part.tables)]


async def migrate(chancy: Chancy) -> None:
    """Creates or upgrades the tables and secures them, all of it or nothing.

    Harmless when there is nothing to do, when two run at once, and when a later version
    has migrated already: its tables stay as they are.

    Raises:
        WorkersError: The database does not answer, row level security hides the tables
            from this user, somebody else has one of the names, or PostgreSQL refuses.
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
                    if part.due:
                        await part.migrator.migrate(connection)
                created = await _with_prefix(connection, chancy) - before
                await close_tables(connection, created.union(tables_of(chancy, parts)))
        except psycopg.Error as error:
            raise WorkersError(
                f"PostgreSQL refused the migration ({reason_of(error)}) and everything was "
                "rolled back: connect as the owner of the tables, or as a user who may "
                "create them"
            ) from error


async def check_tables(
    chancy: Chancy, connection: AsyncConnection[TupleRow], *, remedy: str
) -> None:
    """Makes sure that the database holds the tables that Chancy needs; writes nothing.

    Args:
        remedy: The words for how to migrate.

    Raises:
        WorkersError: They are missing or too old, or row level security hides them
            from this user.
    """
    await refuse_hidden_table(connection, version_table(chancy))
    parts = await parts_of(connection, chancy)
    if due := [str(part) for part in parts if part.due]:
        raise WorkersError(
            f"the tables {chancy.prefix}* at {target(connection)} are missing or too "
            f"old ({'; '.join(due)}): {remedy}"
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
    """Stops before Chancy drops, or fails at, a table that it did not create."""
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
            f"{foreign[0]} is there at {target(connection)} and is not Chancy's: rename "
            f"it, or give the workers another prefix than {chancy.prefix}"
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
