"""The leader's housekeeping: it rescues the jobs of lost workers and prunes old ones."""

import time
from typing import Any

from chancy.plugins import pruner, recovery
from chancy.rule import SQLAble
from chancy.utils import timed_block
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Json

from chancy_runtime.plugins.base import OnOurWorker

MAX_RESCUES = 3
MOST_ROWS = 1000
MOST_PAGES = 1000
# Reads by place in the table, without an index: a batch reads only its own pages, however
# many rows stay in the table. A row that another session has locked waits for the next poll.
_PRUNE = """
WITH pruned AS (
    DELETE FROM {jobs} WHERE ctid = ANY(ARRAY(
        SELECT ctid FROM {jobs} WHERE ctid > {place}::tid AND ctid < {end}::tid
            AND state IN ('succeeded', 'failed') AND ({rule})
        LIMIT {most} FOR UPDATE SKIP LOCKED
    )) RETURNING ctid
)
SELECT count(*) AS removed, max(ctid)::text AS last,
    pg_relation_size({name}) / current_setting('block_size')::int AS pages
FROM pruned
"""
_GIVEN_UP = (
    "given up: the worker that ran this job was lost {} times, each time while it ran; the "
    "job itself may end the process"
)


class Pruner(OnOurWorker, pruner.Pruner):
    """Chancy's Pruner, but it also prunes at the start.

    Each poll reads the whole table, in pieces of MOST_PAGES, with a transaction for each.
    Chancy 0.26 prunes one batch in a poll, so the table grows for ever above 10,000 jobs a
    minute; and for each batch it reads all rows that stay.

    Args:
        rule: Which ended jobs are deleted. Default: those older than a day.
        maximum_to_prune: How many jobs one transaction deletes.
        poll_interval: Seconds between two polls. Default: the setting `poll_interval`.
    """

    _START = "(0,0)"
    _place = _START

    def __init__(
        self,
        rule: SQLAble | None = None,
        *,
        maximum_to_prune: int = MOST_ROWS,
        poll_interval: int | None = None,
    ) -> None:
        super().__init__(
            rule, maximum_to_prune=maximum_to_prune, poll_interval=poll_interval or 0
        )

    @property
    def is_at_the_start(self) -> bool:
        """Whether the next piece is the first piece."""
        return self._place == self._START

    async def prune(self, chancy: Any, cursor: Any) -> int:
        """Removes old jobs from the next piece of the table; returns how many."""
        end = int(self._place[1:].split(",")[0]) + MOST_PAGES
        query = sql.SQL(_PRUNE).format(
            jobs=(jobs := sql.Identifier(f"{chancy.prefix}jobs")),
            name=sql.Literal(jobs.as_string(None)),
            rule=self.rule.to_sql(),
            place=sql.Literal(self._place),
            end=sql.Literal(f"({end},0)"),
            most=sql.Literal(self.maximum_to_prune),
        )
        await cursor.execute(query)
        row = await cursor.fetchone()
        removed: int = row["removed"]
        if removed == self.maximum_to_prune:
            self._place = row["last"]
        else:
            self._place = f"({end},0)" if end < row["pages"] else self._START
        return removed

    async def run(self, worker: Any, chancy: Any) -> None:
        self.poll_interval = self.poll_interval or chancy.settings.poll_interval
        self.wakeup_signal.set()
        while await self.sleep(self.poll_interval):
            await self.wait_for_leader(worker)
            await self._prune_all(chancy)
            for plugin in chancy.plugins.values():
                if (rows := await plugin.cleanup(chancy)) is not None:
                    name = type(plugin).__name__
                    chancy.log.info("%s removed %d old row(s).", name, rows)

    async def _prune_all(self, chancy: Any) -> None:
        self._place = self._START
        removed = 0
        with timed_block() as block:
            while True:
                # A connection for each piece: others may wait for the pool in between.
                async with (
                    chancy.pool.connection() as connection,
                    connection.cursor(row_factory=dict_row) as cursor,
                ):
                    removed += await self.prune(chancy, cursor)
                    if self.is_at_the_start:
                        event = {"elapsed": block.elapsed, "rows_removed": removed}
                        await chancy.notify(cursor, "pruner.removed", event)
                        break
        chancy.log.info(
            "Pruner removed %d old job(s) in %.2f seconds.", removed, block.elapsed
        )


class Recovery(OnOurWorker, recovery.Recovery):
    """Chancy's Recovery, but it gives a job up after MAX_RESCUES rescues.

    Chancy 0.26 rescues for ever and grants one more attempt each time, so a job that kills
    its process does so again and again. The count is in the job's meta. Recovery rescues up
    to MOST_ROWS jobs in a transaction, and then continues at once. After a start or an outage
    it waits until every live worker has had the time to announce itself, because a crash of
    the server empties the table of workers. It also waits while a heartbeat of its own
    worker is late and after it, because those of other workers may be late too.

    Args:
        poll_interval: Seconds between two polls. Default: the setting `poll_interval`.
    """

    def __init__(self, *, poll_interval: int | None = None) -> None:
        super().__init__(poll_interval=poll_interval or 0)

    async def run(self, worker: Any, chancy: Any) -> None:
        self.poll_interval = self.poll_interval or chancy.settings.poll_interval
        self.wakeup_signal.set()
        await super().run(worker, chancy)

    @classmethod
    async def recover(cls, worker: Any, chancy: Any, cursor: Any) -> int:
        if time.monotonic() - chancy.monitor.calm_since < worker.settling_time:
            return 0
        query = sql.SQL(
            """
            WITH lost AS (
                SELECT j.id, j.claim_id,
                    CASE WHEN j.meta ->> 'rescues' ~ '^[0-9][0-9]?$'
                        THEN (j.meta ->> 'rescues')::int ELSE 0 END AS rescues
                FROM {jobs} j
                WHERE j.state = 'running' AND NOT EXISTS (
                    SELECT FROM {workers} w
                    WHERE w.worker_id = j.taken_by
                    AND w.last_seen >= NOW() - %(timeout)s * INTERVAL '1 second'
                ) AND COALESCE(j.taken_by, '') <> ALL(%(here)s) AND EXISTS (
                    SELECT FROM {workers} w
                    WHERE w.worker_id = %(worker)s
                    AND w.last_seen >= NOW() - %(timeout)s * INTERVAL '1 second'
                )
                LIMIT %(limit)s FOR UPDATE OF j SKIP LOCKED
            )
            UPDATE {jobs} j SET
                claim_id = NULL,
                taken_by = NULL,
                started_at = NULL,
                meta = CASE jsonb_typeof(j.meta) WHEN 'object' THEN j.meta ELSE jsonb_build_object() END
                    || jsonb_build_object('rescues', lost.rescues + 1),
                state = CASE WHEN rescues < %(most)s THEN 'pending' ELSE 'failed' END,
                completed_at = CASE WHEN rescues < %(most)s THEN NULL ELSE NOW() END,
                errors = CASE WHEN rescues < %(most)s THEN j.errors
                    ELSE j.errors || %(given_up)s::jsonb END
            FROM lost WHERE j.id = lost.id
            RETURNING j.id, j.func, j.queue, j.state, lost.claim_id
            """
        )
        # Because of the limit, the planner might expect to find the rows early in a scan.
        await cursor.execute("SET LOCAL enable_seqscan = off")
        given_up = {"traceback": _GIVEN_UP.format(MAX_RESCUES + 1), "attempt": 0}
        await cursor.execute(
            query.format(
                jobs=sql.Identifier(f"{chancy.prefix}jobs"),
                workers=sql.Identifier(f"{chancy.prefix}workers"),
            ),
            {
                "timeout": worker.heartbeat_timeout,
                # If this Worker's heartbeats do not arrive, those of others may not either.
                "worker": worker.worker_id,
                # These Workers are alive, even if their heartbeats failed.
                "here": [each.worker_id for each in chancy.workers],
                "most": MAX_RESCUES,
                "limit": MOST_ROWS,
                "given_up": Json([given_up]),
            },
        )
        rows = await cursor.fetchall()
        if len(rows) == MOST_ROWS:
            chancy.plugins[cls.get_identifier()].wake_up()
        events: list[tuple[str, dict[str, str]]] = []
        for row in rows:
            if row["state"] == "failed":
                message = (
                    f"the job {row['func']} ({row['id']}) is {given_up['traceback']}"
                )
                chancy.monitor.report(message, None, task="Recovery")
            else:
                events.append(("queue.pushed", {"q": row["queue"]}))
            if row["claim_id"]:
                claim = {"j": str(row["id"]), "c": str(row["claim_id"])}
                events.append(("job.recovered", claim))
        await chancy.notify_many(cursor, events)
        return len(rows)
