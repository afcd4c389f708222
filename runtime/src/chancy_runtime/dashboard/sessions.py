"""The sessions of visitors who logged in by password: the rows of DashboardSessions."""

import hmac

from chancy_runtime.app import Chancy
from chancy_runtime.dashboard.visitors import Role
from chancy_runtime.jobs.rows import statement
from chancy_runtime.plugins.dashboard_sessions import DashboardSessions

HOURS = 8
_DELETE_OLD = "DELETE FROM {dashboard_sessions} WHERE expires_at < now()"
_ADD = (
    "INSERT INTO {dashboard_sessions} VALUES (%s, now() + make_interval(hours => %s))"
)
_FIND = "SELECT id FROM {dashboard_sessions} WHERE id = ANY(%s) AND expires_at > now()"
_DELETE = "DELETE FROM {dashboard_sessions} WHERE id = ANY(%s)"


def has_table(chancy: Chancy) -> bool:
    """Whether the service has the plugin, and with it the table."""
    return DashboardSessions.get_identifier() in chancy.plugins


def id_of(token: str, role: Role, password: str) -> bytes:
    """Returns the id of a session, which needs both the token and the password.

    So a new password ends all sessions, and a row that somebody else wrote opens none.
    """
    return hmac.digest(password.encode(), f"{role} {token}".encode(), "sha256")


async def begin(chancy: Chancy, id: bytes) -> None:
    """Adds a session, and deletes expired sessions.

    Raises:
        psycopg.Error: The database did not answer, or refused.
    """
    async with chancy.pool.connection() as connection:
        await connection.execute(statement(_DELETE_OLD, chancy.prefix))
        await connection.execute(statement(_ADD, chancy.prefix), [id, HOURS])


async def find(chancy: Chancy, ids: list[bytes]) -> set[bytes]:
    """Returns the ids of sessions that exist and have not expired.

    Raises:
        psycopg.Error: The database did not answer, or refused.
    """
    async with chancy.pool.connection() as connection:
        cursor = await connection.execute(statement(_FIND, chancy.prefix), [ids])
        return {bytes(id) for (id,) in await cursor.fetchall()}


async def end(chancy: Chancy, ids: list[bytes]) -> None:
    """Ends sessions, on every replica.

    Raises:
        psycopg.Error: The database did not answer, or refused.
    """
    async with chancy.pool.connection() as connection:
        await connection.execute(statement(_DELETE, chancy.prefix), [ids])
