"""The indexes with which a claim finds the next jobs, however many rows the table has.

There are two kinds of waiting jobs, and no index serves both. Most jobs may run as soon as
they are pushed, in the order of priority and id. The others are scheduled for later, or run
again later, and must fall due first. Each kind has its own index, and each waiting row is in
exactly one of the two.
"""

import asyncio
import time
from typing import LiteralString

import psycopg
from chancy import Chancy
from psycopg import AsyncConnection, sql
from psycopg.errors import LockNotAvailable
from psycopg.rows import TupleRow

from chancy_runtime.errors import WorkersError
from chancy_runtime.postgres.connecting import connect, reason_of, target
from chancy_runtime.postgres.pooler import refuse_transaction_pooler

# The key of the library in the table of versions, which also has Chancy and its plugins.
KEY = "chancy_runtime"
VERSION = 1

WAITS: LiteralString = "state IN ('pending', 'retrying') AND attempts < max_attempts"
# A row without a priority would end the recursion from each priority to the next lower one.
FROM_THE_PUSH: LiteralString = (
    WAITS + " AND (scheduled_at <= created_at OR priority IS NULL)"
)
FROM_A_LATER_TIME: LiteralString = (
    WAITS + " AND scheduled_at > created_at AND priority IS NOT NULL"
)
_INDEXES: dict[str, LiteralString] = {
    "runtime_jobs_now": f"(queue, priority DESC, id) WHERE {FROM_THE_PUSH}",
    "runtime_jobs_later": (
        f"(queue, priority DESC, scheduled_at, id) WHERE {FROM_A_LATER_TIME}"
    ),
}

# Seconds that a build waits for a lock or an older transaction, or for another migrate.
_LOCK_TIMEOUT = 60
_LONGEST_WAIT = 600
_POLL_INTERVAL = 0.5
_SESSION = """
SELECT set_config(name, CASE name WHEN 'lock_timeout' THEN %s ELSE '0' END, false)
FROM pg_settings WHERE name IN ('lock_timeout', 'statement_timeout',
    'transaction_timeout', 'idle_session_timeout')
"""
_STATE = """
SELECT c.relname, i.indisvalid AND i.indisready
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = to_regclass(quote_ident(%s)) AND c.relname = ANY(%s)
"""
_SAME = """
SELECT a.indexrelid::regclass::text, b.indexrelid::regclass::text
FROM pg_index a JOIN pg_class c ON c.oid = a.indexrelid AND c.relname = ANY(%(names)s)
JOIN pg_index b ON b.indrelid = a.indrelid AND b.indexrelid <> a.indexrelid
WHERE a.indrelid = to_regclass(quote_ident(%(jobs)s)) AND b.indisvalid
    AND substring(pg_get_indexdef(a.indexrelid) FROM ' USING .*')
        = substring(pg_get_indexdef(b.indexrelid) FROM ' USING .*')
ORDER BY c.relname
"""
_BLOCKING = """
SELECT a.pid, concat_ws(', ', a.backend_type, nullif(a.application_name, ''), a.state,
    'in a transaction since ' || a.xact_start::timestamptz(0))
FROM unnest(pg_blocking_pids(%s)) AS pid JOIN pg_stat_activity a USING (pid)
ORDER BY a.xact_start LIMIT 1
"""
_BUILDING = """
SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND database =
    (SELECT oid FROM pg_database WHERE datname = current_database())
    AND (classid::bigint << 32 | objid::bigint) = hashtextextended(%s, 0)
"""


def _names(prefix: str) -> list[str]:
    return [f"{prefix}{name}" for name in _INDEXES]


async def _states(
    connection: AsyncConnection[TupleRow], prefix: str
) -> dict[str, bool]:
    """Returns the indexes that exist, and whether each can be used."""
    cursor = await connection.execute(_STATE, [f"{prefix}jobs", _names(prefix)])
    return dict(await cursor.fetchall())


async def are_built(connection: AsyncConnection[TupleRow], prefix: str) -> bool:
    """Returns whether claims can use the indexes; an unfinished index cannot be used."""
    states = await _states(connection, prefix)
    return len(states) == len(_INDEXES) and all(states.values())


async def same_indexes(
    connection: AsyncConnection[TupleRow], prefix: str
) -> list[tuple[str, str]]:
    """Returns the indexes that the table has twice, each with its duplicate.

    A later Chancy may create the same indexes.
    """
    cursor = await connection.execute(
        _SAME, {"jobs": f"{prefix}jobs", "names": _names(prefix)}
    )
    return [(ours, other) for ours, other in await cursor.fetchall()]


async def build(
    connection: AsyncConnection[TupleRow], chancy: Chancy, version_table: str
) -> None:
    """Builds missing indexes while the queues stay in use, and records their version.

    PostgreSQL builds such an index outside of a transaction. An interrupted build leaves an
    unfinished index, which is dropped first. Two builds may run at the same time.

    Args:
        connection: A connection in autocommit mode. Close it afterwards, because the
            settings of its session are changed.

    Raises:
        WorkersError: Another transaction or another build takes too long, or PostgreSQL
            refuses.
    """
    await refuse_transaction_pooler(chancy.dsn, chancy.prefix, connection)
    async with await connect(chancy.dsn) as observer:
        try:
            await connection.execute(_SESSION, [f"{_LOCK_TIMEOUT}s"])
            await _lock(connection, chancy.prefix)
            states = await _states(connection, chancy.prefix)
            for name, definition in _INDEXES.items():
                index = sql.Identifier(f"{chancy.prefix}{name}")
                is_valid = states.get(f"{chancy.prefix}{name}")
                if is_valid is False:
                    drop = sql.SQL("DROP INDEX CONCURRENTLY {}").format(index)
                    await _run(connection, observer, drop)
                if not is_valid:
                    create = sql.SQL(
                        "CREATE INDEX CONCURRENTLY {} ON {} " + definition
                    ).format(index, sql.Identifier(f"{chancy.prefix}jobs"))
                    await _run(connection, observer, create)
            await connection.execute(
                sql.SQL(
                    "INSERT INTO {} (version_of, version) VALUES (%s, %s) "
                    "ON CONFLICT (version_of) DO UPDATE SET version = EXCLUDED.version"
                ).format(sql.Identifier(version_table)),
                [KEY, VERSION],
            )
        except psycopg.Error as error:
            raise WorkersError(
                f"PostgreSQL refused to build an index of {chancy.prefix}jobs at "
                f"{target(connection)} ({reason_of(error)}): the tables are migrated and "
                "the workers run without it; connect as the owner of the tables and run "
                "migrate again"
            ) from error


async def _lock(connection: AsyncConnection[TupleRow], prefix: str) -> None:
    """Waits until no other migrate builds indexes, in statements that hold no snapshot.

    The other build waits for all older snapshots, so a snapshot here would block it.

    Raises:
        WorkersError: The other build takes too long.
    """
    key = f"index {prefix}"
    end = time.monotonic() + _LONGEST_WAIT
    while True:
        cursor = await connection.execute(
            "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [key]
        )
        if await cursor.fetchone() == (True,):
            return
        if time.monotonic() > end:
            cursor = await connection.execute(_BUILDING, [key])
            pids = " and ".join(str(pid) for (pid,) in await cursor.fetchall())
            raise WorkersError(
                f"another migrate has been building an index of {prefix}jobs at "
                f"{target(connection)} for more than {_LONGEST_WAIT} s, in the session "
                f"with the pid {pids}: let it end, or end it with SELECT "
                f"pg_terminate_backend({pids}), and run migrate again"
            )
        await asyncio.sleep(_POLL_INTERVAL)


async def _run(
    connection: AsyncConnection[TupleRow],
    observer: AsyncConnection[TupleRow],
    statement: sql.Composed,
) -> None:
    """Runs a statement that waits for older transactions, and finds the one that blocks it.

    Raises:
        WorkersError: The other transaction takes too long.
    """
    pid, what = "pid", "another transaction"
    running = asyncio.create_task(connection.execute(statement))
    try:
        while not running.done():
            cursor = await observer.execute(_BLOCKING, [connection.info.backend_pid])
            if row := await cursor.fetchone():
                pid, what = row[0], f"the pid {row[0]} ({row[1]})"
            await asyncio.wait([running], timeout=_POLL_INTERVAL)
        await running
    except LockNotAvailable as error:
        raise WorkersError(
            f"{statement.as_string()} at {target(connection)} waited {_LOCK_TIMEOUT} s "
            f"for {what}: let it end, or end it with SELECT pg_terminate_backend({pid}), "
            "and run migrate again; until then the workers run without the index"
        ) from error
    finally:
        running.cancel()
