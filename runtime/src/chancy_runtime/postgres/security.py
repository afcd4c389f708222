"""Closes Chancy's tables to Supabase's public API.

With Supabase's default grants, anybody who has the project's public key may read and write
every new table of the schema `public`. A row in the jobs table can call any function that
the service can import.
"""

from collections.abc import Collection

from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from chancy_runtime.errors import WorkersError
from chancy_runtime.postgres.connecting import target

# https://supabase.com/docs/guides/database/postgres/roles
PUBLIC_ROLES = ("anon", "authenticated")


async def find_open_tables(
    connection: AsyncConnection[TupleRow], tables: Collection[str]
) -> list[str]:
    """Returns the tables that a public role may read, write or truncate."""
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
    cursor = await connection.execute(
        query, {"tables": list(tables), "roles": list(PUBLIC_ROLES)}
    )
    return [name for (name,) in await cursor.fetchall()]


async def close_tables(
    connection: AsyncConnection[TupleRow], tables: Collection[str]
) -> None:
    """Enables row level security, and revokes Supabase's default grants.

    The owner of the tables bypasses row level security; everybody else needs a policy, and
    there is none. A second run changes nothing and takes no lock.
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


async def refuse_hidden_table(
    connection: AsyncConnection[TupleRow], table: str
) -> None:
    """Makes sure that the current user sees the rows of a table.

    A user who is not the owner would see an empty table because of row level security, and
    the workers would wait for jobs for ever. `migrate --print-grants` prints policies for
    other roles than the owner.

    Raises:
        WorkersError: Row level security applies to the current user, without a policy.
    """
    cursor = await connection.execute(
        "SELECT current_user, tableowner FROM pg_tables "
        "WHERE schemaname = current_schema() AND tablename = %s "
        "AND row_security_active(to_regclass(quote_ident(tablename))) AND NOT EXISTS ("
        "SELECT FROM pg_policies p WHERE p.schemaname = pg_tables.schemaname "
        "AND p.tablename = pg_tables.tablename AND p.permissive = 'PERMISSIVE' "
        "AND p.cmd IN ('ALL', 'SELECT') AND EXISTS (SELECT FROM unnest(p.roles) AS role "
        "WHERE CASE role WHEN 'public' THEN true ELSE pg_has_role(role, 'USAGE') END))",
        [table],
    )
    if row := await cursor.fetchone():
        user, owner = row
        raise WorkersError(
            f"row level security hides {table} at {target(connection)} from {user}: "
            f"connect as its owner {owner}, or as a role with the rights that migrate "
            f"--print-grants prints, or run ALTER ROLE {user} BYPASSRLS"
        )
