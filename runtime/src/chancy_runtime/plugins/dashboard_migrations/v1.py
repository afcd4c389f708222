from chancy.migrate import Migration, Migrator
from psycopg import AsyncCursor, sql
from psycopg.rows import DictRow


class V1Migration(Migration):
    async def up(self, migrator: Migrator, cursor: AsyncCursor[DictRow]) -> None:
        await cursor.execute(
            sql.SQL(
                "CREATE TABLE {} (id bytea PRIMARY KEY, expires_at timestamptz NOT NULL)"
            ).format(sql.Identifier(f"{migrator.prefix}dashboard_sessions"))
        )

    async def down(self, migrator: Migrator, cursor: AsyncCursor[DictRow]) -> None:
        await cursor.execute(
            sql.SQL("DROP TABLE {}").format(
                sql.Identifier(f"{migrator.prefix}dashboard_sessions")
            )
        )
