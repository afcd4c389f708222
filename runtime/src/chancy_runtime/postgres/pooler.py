"""Checks the pooler between the workers and the database."""

import logging
import re
from itertools import cycle
from uuid import uuid4

from psycopg import AsyncConnection, sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

from chancy_runtime.errors import WorkersError
from chancy_runtime.postgres.connecting import connect, target
from chancy_runtime.postgres.target import target_of
from chancy_runtime.settings import Settings

# https://supabase.com/docs/guides/database/connecting-to-postgres
_POOLER = ".pooler.supabase.com"
_DIRECT_HOST = r"db\..+\.supabase\.co"
_TRANSACTION_PORT = "6543"
_SESSION_FORM = "postgresql://postgres.<project>:<password>@<name>.pooler.supabase.com:5432/postgres"
_LISTEN_TIMEOUT = 5


def refuse_transaction_port(dsn: str) -> None:
    """Refuses Supabase's transaction pooler by its port, before anything connects.

    Raises:
        WorkersError: The URL has its host and port.
    """
    for host, port in _hosts(dsn):
        if host.endswith(_POOLER) and port == _TRANSACTION_PORT:
            raise WorkersError(
                f"{target_of(dsn)} is Supabase's transaction pooler, on which "
                f"workers die within seconds: use the session pooler, {_SESSION_FORM}"
            )


def _hosts(url: str) -> list[tuple[str, str]]:
    """Returns the hosts of a URL, normalized for comparison, with their ports."""
    parameters = conninfo_to_dict(url)
    hosts = str(parameters.get("host") or "").lower().split(",")
    ports = str(parameters.get("port") or "").split(",")
    return [
        (host.rstrip("."), port)
        for host, port in zip(hosts, cycle(ports), strict=False)
    ]


async def refuse_transaction_pooler(
    dsn: str, prefix: str, connection: AsyncConnection[TupleRow]
) -> None:
    """Refuses a pooler that gives each transaction another session.

    Such a pooler accepts LISTEN but delivers no notifications.

    Raises:
        WorkersError: A notification does not arrive.
    """
    channel = f"{prefix}probe_{uuid4().hex[:8]}"
    await connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
    async with await connect(dsn) as other:
        await other.execute("SELECT pg_notify(%s, '')", [channel])
        notifications = connection.notifies(timeout=_LISTEN_TIMEOUT, stop_after=1)
        async for _ in notifications:
            return
    raise WorkersError(
        f"{target(connection)} does not deliver notifications, so it is probably a "
        "transaction pooler: use a session pooler (PgBouncer: pool_mode = session; "
        f"Supabase: {_SESSION_FORM}) or the database itself"
    )


def warn_about_connections(
    dsn: str, settings: Settings, *, pool: int, workers: int, log: logging.Logger
) -> None:
    """Warns if the replicas use more connections than the pooler has, or a host with IPv6 only.

    Args:
        pool: The most connections of a process's pool.
        workers: How many Workers a process runs; each has a connection for LISTEN.
    """
    hosts = [host for host, _ in _hosts(dsn)]
    if any(re.fullmatch(_DIRECT_HOST, host) for host in hosts):
        log.warning(
            "%s is Supabase's direct host, which has only IPv6 unless the project pays for "
            "IPv4: if the workers cannot use IPv6, use the session pooler, %s",
            *(target_of(dsn), _SESSION_FORM),
        )
    if not any(host.endswith(_POOLER) for host in hosts):
        return
    used = settings.replicas * (pool + workers)
    if used > settings.pooler_connections:
        log.warning(
            "%s replicas × (%s pool connections + %s for LISTEN) are %s connections, but "
            "the pooler has %s: raise its pool size and the setting pooler_connections, or "
            "lower CHANCY_MAX_POOL_SIZE",
            *(settings.replicas, pool, workers, used, settings.pooler_connections),
        )
