"""Looks at what stands between the workers and the database."""

import logging
from uuid import uuid4

from psycopg import AsyncConnection, sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

from .chancy_app import Chancy
from .chancy_database import connect, target
from .chancy_errors import WorkersError

# https://supabase.com/docs/guides/database/connecting-to-postgres
_POOLER = ".pooler.supabase.com"
_TRANSACTION_PORT = "6543"
_SESSION_FORM = "postgresql://postgres.<project>:<password>@<name>.pooler.supabase.com:5432/postgres"
_LISTEN_TIMEOUT = 3


def refuse_transaction_port(chancy: Chancy) -> None:
    """Refuses Supabase's transaction pooler by its port, before anything connects.

    Raises:
        WorkersError: The URL leads to it.
    """
    parameters = conninfo_to_dict(chancy.dsn)
    host, port = str(parameters.get("host", "")), str(parameters.get("port", ""))
    if host.endswith(_POOLER) and port == _TRANSACTION_PORT:
        raise WorkersError(
            f"{chancy.monitor.database} is Supabase's transaction pooler, on which workers "
            f"die within seconds: use the session pooler, {_SESSION_FORM}"
        )


async def refuse_transaction_pooler(
    chancy: Chancy, connection: AsyncConnection[TupleRow]
) -> None:
    """Refuses a pooler that gives each transaction another session, by what it does.

    LISTEN is what such a pooler takes silently and does not do.

    Raises:
        WorkersError: A notification does not arrive.
    """
    channel = f"{chancy.prefix}probe_{uuid4().hex[:8]}"
    await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
    async with await connect(chancy.dsn) as other:
        await other.execute("SELECT pg_notify(%s, '')", [channel])
        notifications = connection.notifies(timeout=_LISTEN_TIMEOUT, stop_after=1)
        async for _ in notifications:
            return
    raise WorkersError(
        f"{target(connection)} does not deliver notifications, as a transaction pooler: "
        "workers need sessions, so use a session pooler (PgBouncer: pool_mode = session; "
        f"Supabase: {_SESSION_FORM}) or the database itself"
    )


def warn_about_connections(chancy: Chancy, workers: int, log: logging.Logger) -> None:
    """Warns when the replicas use more connections than the pooler has, or IPv6 only.

    Args:
        workers: How many Workers a process runs; each has a connection for LISTEN.
    """
    host = str(conninfo_to_dict(chancy.dsn).get("host", ""))
    if host.startswith("db.") and host.endswith(".supabase.co"):
        log.warning(
            "%s is Supabase's direct host, which is IPv6 only unless the project pays for "
            "IPv4: where there is no IPv6, use the session pooler, %s",
            *(chancy.monitor.database, _SESSION_FORM),
        )
    settings, pool = chancy.settings, chancy.max_connection_pool_size
    used = settings.replicas * (pool + workers)
    if host.endswith(_POOLER) and used > settings.pooler_connections:
        log.warning(
            "%s replicas × (%s pool connections + %s for LISTEN) are %s connections, and "
            "the pooler has %s: raise its pool size and the setting pooler_connections, or "
            "lower CHANCY_MAX_POOL_SIZE",
            *(settings.replicas, pool, workers, used, settings.pooler_connections),
        )
