"""Elects the one process that prunes and recovers."""

import asyncio
from typing import Any

import chancy
from chancy.plugins import leadership
from psycopg import sql
from psycopg.rows import dict_row

from chancy_runtime.errors import WorkersError
from chancy_runtime.plugins.base import OnOurWorker
from chancy_runtime.supervision.monitor import DATABASE_ERRORS

_FREED = "leadership.freed"
_FREE_TIMEOUT = 2
_LEASE_MARGIN = 0.1


class Leadership(OnOurWorker, leadership.Leadership):
    """Chancy's Leadership, but it elects at the start and uses the server's clock.

    When a leader stops, it gives up its lease. Chancy 0.26 elects after its first poll, keeps
    the lease of a stopped leader, and measures leases with each worker's own clock.

    Args:
        poll_interval: Seconds after which the lease is renewed. Default: half of the lease.
        timeout: Seconds of the lease. Default: the setting `leader_lease`.
    """

    def __init__(
        self, poll_interval: int | None = None, timeout: int | None = None
    ) -> None:
        super().__init__()
        self.poll_interval = poll_interval or 0
        self.timeout = timeout or 0

    async def on_worker_started(self, *, worker: Any) -> None:
        await super().on_worker_started(worker=worker)
        lease, pause = self._times(worker.chancy)
        if pause > lease:
            raise WorkersError(
                f"Leadership has the poll_interval {pause} and a lease of {lease} s, "
                "which would end before it is renewed: lower poll_interval, or raise the "
                "lease (timeout, or the setting leader_lease)"
            )
        worker.hub.on(_FREED, lambda _: self.wakeup_signal.set())

    def _times(self, chancy: Any) -> tuple[int, float]:
        """Returns the lease, and the pause until it is renewed, in seconds."""
        lease: int = self.timeout or chancy.settings.leader_lease
        return lease, self.poll_interval or lease / 2

    async def on_worker_stopped(self, *, worker: Any) -> None:
        if worker.chancy.monitor.database_is_lost:
            return
        # Even if the flag is not set: a stop can come between the election and the flag.
        worker.is_leader.clear()
        query = sql.SQL("DELETE FROM {} WHERE worker_id = %s")
        try:
            async with (
                asyncio.timeout(_FREE_TIMEOUT),
                worker.chancy.pool.connection() as connection,
                connection.cursor(row_factory=dict_row) as cursor,
            ):
                await cursor.execute(
                    query.format(_table(worker.chancy)), [worker.worker_id]
                )
                if cursor.rowcount:
                    await worker.chancy.notify(cursor, _FREED, {})
        except (*DATABASE_ERRORS, TimeoutError):
            return  # The lease then expires.

    async def run(self, worker: Any, chancy: Any) -> None:
        while True:
            pause = await self._elect(worker, chancy)
            await self.sleep(pause)

    async def _elect(self, worker: Any, chancy: Any) -> float:
        """Takes or renews the lease; returns the seconds until the next attempt."""
        query = sql.SQL(
            """
            INSERT INTO {table} AS l (id, worker_id, expires_at)
            VALUES (1, %(worker)s, NOW() + %(lease)s * INTERVAL '1 second')
            ON CONFLICT (id) DO UPDATE SET
                worker_id = EXCLUDED.worker_id, expires_at = EXCLUDED.expires_at
            WHERE l.worker_id = EXCLUDED.worker_id OR l.expires_at < NOW()
            """
        )
        lease, pause = self._times(chancy)
        async with (
            chancy.pool.connection() as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            await cursor.execute(
                query.format(table=_table(chancy)),
                {"worker": worker.worker_id, "lease": lease},
            )
            leads, led = cursor.rowcount == 1, worker.is_leader.is_set()
            if not leads:
                # The next attempt comes as soon as the lease of a killed leader ends.
                await cursor.execute(
                    sql.SQL(
                        "SELECT EXTRACT(epoch FROM expires_at - NOW())::float AS left "
                        "FROM {}"
                    ).format(_table(chancy))
                )
                if row := await cursor.fetchone():
                    left: float = row["left"]
                    pause = min(pause, max(0, left) + _LEASE_MARGIN)
            if leads or led:
                event = "gained" if not led else "renewed" if leads else "lost"
                body = {"worker_id": worker.worker_id}
                await chancy.notify(cursor, f"leadership.{event}", body)
        if leads == led:
            return pause
        if leads:
            worker.is_leader.set()
        else:
            worker.is_leader.clear()
        chancy.log.info("this worker %s", "leads now" if leads else "no longer leads")
        return pause


def _table(app: chancy.Chancy) -> sql.Identifier:
    return sql.Identifier(f"{app.prefix}leader")
