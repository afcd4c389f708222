"""Lets the database push jobs when a table of the service changes."""

from typing import Any
from uuid import UUID

import chancy
from chancy import Job
from chancy.job import IsAJob
from chancy.plugins import trigger
from psycopg import AsyncCursor, sql
from psycopg.rows import DictRow


class Trigger(trigger.Trigger):
    """Chancy's Trigger, for changes by users without rights on Chancy's tables.

    The function of the triggers runs with the rights of its owner, so that an INSERT by
    Supabase's role `authenticated` pushes the job although that role can neither read nor
    write Chancy's tables. It pushes only the registered job. Chancy 0.26 runs it with the
    rights of the user who changes the table, and the change then fails.
    """

    @classmethod
    async def register_trigger_ex(
        cls,
        cursor: AsyncCursor[DictRow],
        chancy: chancy.Chancy,
        table_name: str,
        operations: list[str],
        job_template: Job | IsAJob[..., Any],
        *,
        schema_name: str = "public",
        enabled: bool = True,
    ) -> UUID:
        trigger_id = await super().register_trigger_ex(
            cursor,
            chancy,
            table_name,
            operations,
            job_template,
            schema_name=schema_name,
            enabled=enabled,
        )
        await cursor.execute("SELECT current_schema() AS name")
        schema = await cursor.fetchone()
        assert schema
        # https://www.postgresql.org/docs/current/sql-createfunction.html#SQL-CREATEFUNCTION-SECURITY
        await cursor.execute(
            sql.SQL(
                "ALTER FUNCTION {}() SECURITY DEFINER SET search_path = {}, pg_temp"
            ).format(
                sql.Identifier(f"{chancy.prefix}trigger_handler"),
                sql.Identifier(schema["name"]),
            )
        )
        return trigger_id
