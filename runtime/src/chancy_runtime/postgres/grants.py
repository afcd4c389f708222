"""The least rights of the roles that push jobs and that run workers, as SQL."""

from collections.abc import Iterable

import psycopg
from chancy import Chancy
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from chancy_runtime.errors import WorkersError
from chancy_runtime.postgres.connecting import connect, reason_of, target
from chancy_runtime.postgres.migrations import parts_of, tables_of, version_table

# The columns that a push writes; the others get the server's defaults. A push whose unique
# key is in use updates the state of the other job to its present value.
_PUSHED = (
    *("id", "queue", "func", "kwargs", "limits", "meta", "priority", "max_attempts"),
    *("scheduled_at", "unique_key"),
)
_SEQUENCES = """
SELECT DISTINCT c.relname FROM pg_class t
JOIN pg_depend d ON d.refobjid = t.oid AND d.deptype IN ('a', 'i')
JOIN pg_class c ON c.oid = d.objid AND c.relkind = 'S'
WHERE t.relnamespace = current_schema()::regnamespace AND t.relname = ANY(%s)
ORDER BY c.relname
"""
_HEAD = """\
-- The least rights on {prefix}* at {target}:
-- {pusher} pushes jobs and can read their state (WORKERS_MODE=push);
-- {worker} runs the workers. Neither can migrate or reach other tables.
-- Run this as the owner of the tables, again after a migration:
--   {command} --print-grants | psql "$URL_OF_THE_OWNER"
-- A new role has no password yet: \\password {pusher}
"""


async def grants(chancy: Chancy, *, command: str) -> str:
    """Returns the SQL that creates the two roles with exactly their rights.

    It can run again: the roles' earlier rights on the tables are revoked first.

    Args:
        command: The command that prints the SQL, for the comment at its top.

    Raises:
        WorkersError: The database does not answer, or the tables do not exist yet.
    """
    async with await connect(chancy.dsn) as connection:
        try:
            parts = await parts_of(connection, chancy)
            if not parts[0].applied:
                raise WorkersError(
                    f"there are no tables {chancy.prefix}* at {target(connection)} to grant "
                    "rights on: run migrate first"
                )
            tables = sorted(set(tables_of(chancy, parts)))
            cursor = await connection.execute(_SEQUENCES, [tables])
            sequences = [name for (name,) in await cursor.fetchall()]
            cursor = await connection.execute(
                "SELECT current_database(), current_schema()"
            )
            row = await cursor.fetchone()
        except psycopg.Error as error:
            raise WorkersError(
                f"PostgreSQL refused to show the tables ({reason_of(error)}): connect as "
                "the owner of the tables"
            ) from error
        assert row
        script = _Script(connection, *row)
        pusher, worker = f"{chancy.prefix}pusher", f"{chancy.prefix}worker"
        script.add("SET LOCAL search_path = {}", row[1])
        # Otherwise psql shows a notice for each policy that does not exist yet.
        script.add("SET LOCAL client_min_messages = warning")
        for role in (pusher, worker):
            script.make(role, tables, sequences)
        jobs, versions = f"{chancy.prefix}jobs", version_table(chancy)
        insert = f"INSERT ({', '.join(_PUSHED)})"
        script.grant(pusher, jobs, f"SELECT, {insert}, UPDATE (state)")
        script.grant(pusher, versions, "SELECT")
        # Metrics show the depth of each queue, even of an empty queue.
        script.grant(pusher, f"{chancy.prefix}queues", "SELECT (name)")
        for table in tables:
            more = "" if table == versions else ", DELETE"
            script.grant(worker, table, f"SELECT, INSERT, UPDATE{more}")
        for name in sequences:
            script.add("GRANT USAGE ON SEQUENCE {} TO {}", name, worker)
        head = _HEAD.format(
            prefix=chancy.prefix,
            target=target(connection),
            pusher=pusher,
            worker=worker,
            command=command,
        )
        return f"{head}BEGIN;\n{''.join(script.lines)}COMMIT;\n"


class _Script:
    """The statements for the tables of one schema, one for each line."""

    def __init__(
        self, connection: AsyncConnection[TupleRow], database: str, schema: str
    ) -> None:
        self.lines: list[str] = []
        self._connection = connection
        self._database = database
        self._schema = schema

    def add(self, statement: str, *names: str) -> None:
        quoted = [sql.Identifier(name).as_string(self._connection) for name in names]
        self.lines.append(statement.format(*quoted) + ";\n")

    def make(self, role: str, tables: Iterable[str], sequences: Iterable[str]) -> None:
        """Creates the role if it is missing, and revokes the rights that it has."""
        literal = sql.Literal(role).as_string(self._connection)
        self.add(
            f"DO $$ BEGIN IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {literal}) "
            "THEN CREATE ROLE {} LOGIN; END IF; END $$",
            role,
        )
        self.add("GRANT CONNECT ON DATABASE {} TO {}", self._database, role)
        self.add("GRANT USAGE ON SCHEMA {} TO {}", self._schema, role)
        for table in tables:
            self.add("REVOKE ALL ON TABLE {} FROM {}", table, role)
            self.add("DROP POLICY IF EXISTS {} ON {}", role, table)
        for name in sequences:
            self.add("REVOKE ALL ON SEQUENCE {} FROM {}", name, role)

    def grant(self, role: str, table: str, rights: str) -> None:
        """Grants rights on a table, and lets the role see its rows."""
        self.add(f"GRANT {rights} ON TABLE {{}} TO {{}}", table, role)
        # Row level security hides all rows from everybody except the owner.
        self.add(
            "CREATE POLICY {} ON {} TO {} USING (true) WITH CHECK (true)",
            *(role, table, role),
        )
