"""The leader's housekeeping: it rescues the jobs of lost workers and prunes old ones."""

import time
from typing import Any

from chancy.plugins import pruner, recovery
from chancy.rule import SQLAble
from psycopg import sql
from psycopg.types.json import Json

from chancy_runtime.plugins.base import OnOurWorker

MAX_RESCUES = 3
_GIVEN_UP = (
    "given up: the worker that ran this job was lost {} times, each time in the middle of "
    "it; it may be the job that ends the process"
)


class Pruner(OnOurWorker, pruner.Pruner):
    """Chancy's Pruner, which prunes at the start and then at its interval.

    After a full batch it goes on at once: Chancy 0.26 prunes one batch in a poll, so
    that the table grows for good above 10,000 jobs a minute.

    Args:
        rule: Which ended jobs are deleted; without it, those older than a day.
        maximum_to_prune: How many jobs one statement deletes.
        poll_interval: Seconds between two polls; without it the setting `poll_interval`.
    """

    def __init__(
        self,
        rule: SQLAble | None = None,
        *,
        maximum_to_prune: int = 10_000,
        poll_interval: int | None = None,
    ) -> None:
        super().__init__(
            rule, maximum_to_prune=maximum_to_prune, poll_interval=poll_interval or 0
        )

    async def prune(self, chancy: Any, cursor: Any) -> int:
        removed: int = await super().prune(chancy, cursor)
        if removed >= self.maximum_to_prune:
            self.wakeup_signal.set()
        return removed

    async def run(self, worker: Any, chancy: Any) -> None:
        self.poll_interval = self.poll_interval or chancy.settings.poll_interval
        self.wakeup_signal.set()
        await super().run(worker, chancy)


class Recovery(OnOurWorker, recovery.Recovery):
    """Chancy's Recovery, which gives a job up after MAX_RESCUES rescues.

    Chancy 0.26 rescues for ever and grants one more attempt each time, so that a job
    that kills its process does so again and again. The count is in the job's meta.
    After a start or an outage Recovery waits until every live worker has had the time to
    announce itself, because a crash of the server empties the table of workers.

    Args:
        poll_interval: Seconds between two polls; without it the setting `poll_interval`.
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
                ) AND COALESCE(j.taken_by, '') <> ALL(%(here)s)
                FOR UPDATE OF j SKIP LOCKED
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
        given_up = {"traceback": _GIVEN_UP.format(MAX_RESCUES + 1), "attempt": 0}
        await cursor.execute(
            query.format(
                jobs=sql.Identifier(f"{chancy.prefix}jobs"),
                workers=sql.Identifier(f"{chancy.prefix}workers"),
            ),
            {
                "timeout": worker.heartbeat_timeout,
                # These are alive, whatever became of their heartbeats.
                "here": [each.worker_id for each in chancy.workers],
                "most": MAX_RESCUES,
                "given_up": Json([given_up]),
            },
        )
        rows = await cursor.fetchall()
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
