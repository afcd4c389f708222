"""Results that are saved in batches keep every promise that Chancy makes of single ones."""

import json
import sys
import textwrap
from pathlib import Path
from typing import Any

from .support import environment, migrate, run

# Runs in the rendered backend; a test adds what happens, and says what it saw.
PREAMBLE = '''
import asyncio
import dataclasses
import json
import uuid

import psycopg
from chancy import QueuedJob
from chancy.plugin import Plugin
from psycopg.rows import dict_row

from app.billing.workers.chancy_initialization import create_chancy
from app.billing.workers.chancy_worker import Worker


class Recording(Plugin):
    """Writes down what the two hooks of an update hear of."""

    def __init__(self):
        super().__init__()
        self.heard = []
        self.failures = 0

    @staticmethod
    def get_identifier():
        return "recording"

    async def on_jobs_updated_in_transaction(self, *, worker, jobs, cursor):
        self.heard.append(["in transaction", *(job.kwargs["note"] for job in jobs)])
        if self.failures:
            self.failures -= 1
            raise psycopg.OperationalError("the connection is gone")

    async def on_job_updated(self, *, worker, job):
        self.heard.append(["saved", job.kwargs["note"]])


async def taken(chancy, note, unique_key=None):
    """A job as a worker has it that took it."""
    async with chancy.pool.connection() as connection:
        cursor = connection.cursor(row_factory=dict_row)
        await cursor.execute(
            "INSERT INTO billing_jobs (id, queue, func, kwargs, state, unique_key, claim_id)"
            " VALUES (gen_random_uuid(), 'default', 'a.b', %s, 'running', %s,"
            " gen_random_uuid()) RETURNING *",
            [json.dumps({"note": note}), unique_key],
        )
        return QueuedJob.unpack(await cursor.fetchone())


def done(job, **changes):
    changes = {"state": QueuedJob.State.SUCCEEDED, "attempts": 1, **changes}
    return dataclasses.replace(job, **changes)


async def rows(chancy):
    async with chancy.pool.connection() as connection:
        cursor = await connection.execute(
            "SELECT kwargs ->> 'note', state, attempts, meta, errors FROM billing_jobs"
            " ORDER BY 1"
        )
        return await cursor.fetchall()


async def main():
    chancy = create_chancy()
    recording = chancy.plugins["recording"] = Recording()
    async with chancy:
        worker = Worker(chancy, register_signal_handlers=False)
        await happens(chancy, worker, recording)
        print(json.dumps({"rows": await rows(chancy), "heard": recording.heard}))


'''


def see(backend: Path, url: str, what: str) -> dict[str, Any]:
    """Runs what happens in the backend's workers; returns the rows and the hooks' calls."""
    migrate(backend, "app.billing", url)
    happens = "async def happens(chancy, worker, recording):\n" + textwrap.indent(
        textwrap.dedent(what), "    "
    )
    script = f"{PREAMBLE}{happens}\n\nasyncio.run(main())\n"
    variables = environment(WORKERS_DATABASE_URL=url)
    result = run(sys.executable, "-c", script, cwd=backend, env=variables)
    seen: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return seen


def test_a_batch_is_saved_and_told_in_its_order(
    backend: Path, database_url: str
) -> None:
    seen = see(
        backend,
        database_url,
        """
        jobs = [await taken(chancy, note, note) for note in ("c", "a", "b")]
        error = {"traceback": 'a "quoted" \\\\ 漢字 \\0', "attempt": 0}
        await worker.queue_update(done(jobs[0], meta={"steps": [1, {"two": None}]}))
        await worker.queue_update(done(jobs[1], state=QueuedJob.State.FAILED, errors=[error]))
        await worker.queue_update(done(jobs[2]))
        await worker.flush()
        """,
    )
    error = {"traceback": 'a "quoted" \\ 漢字 \\0', "attempt": 0}
    assert seen["rows"] == [
        ["a", "failed", 1, {}, [error]],
        ["b", "succeeded", 1, {}, []],
        ["c", "succeeded", 1, {"steps": [1, {"two": None}]}, []],
    ]
    assert seen["heard"] == [
        ["in transaction", "c", "a", "b"],
        *(["saved", note] for note in "cab"),
    ]


def test_a_result_whose_claim_is_gone_changes_nothing(
    backend: Path, database_url: str
) -> None:
    seen = see(
        backend,
        database_url,
        """
        jobs = [await taken(chancy, note) for note in "abc"]
        async with chancy.pool.connection() as connection:
            await connection.execute(
                "UPDATE billing_jobs SET claim_id = gen_random_uuid() WHERE id = %s",
                [jobs[1].id],
            )
        for job in jobs:
            await worker.queue_update(done(job))
        await worker.flush()
        """,
    )
    assert [row[:2] for row in seen["rows"]] == [
        ["a", "succeeded"],
        ["b", "running"],
        ["c", "succeeded"],
    ]
    assert seen["heard"] == [
        ["in transaction", "a", "c"],
        ["saved", "a"],
        ["saved", "c"],
    ]


def test_a_claim_that_goes_while_a_save_waits_for_its_row_is_noticed(
    backend: Path, database_url: str
) -> None:
    seen = see(
        backend,
        database_url,
        """
        job = await taken(chancy, "a")
        await worker.queue_update(done(job))
        async with await psycopg.AsyncConnection.connect(chancy.dsn) as other:
            await other.execute("UPDATE billing_jobs SET claim_id = gen_random_uuid()")
            saving = asyncio.create_task(worker.flush())
            async with asyncio.timeout(20):
                while not (await (await other.execute(
                    "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                )).fetchall()):
                    await asyncio.sleep(0.05)
                await other.commit()
                await saving
        """,
    )
    assert seen["rows"] == [["a", "running", 0, {}, []]]
    assert seen["heard"] == []


def test_two_results_of_one_job_follow_each_other(
    backend: Path, database_url: str
) -> None:
    seen = see(
        backend,
        database_url,
        """
        a, b = await taken(chancy, "a"), await taken(chancy, "b")
        for step in (1, 2, 3):
            await worker.queue_update(
                done(a, state=QueuedJob.State.RUNNING, attempts=step, meta={"step": step})
            )
            if step == 1:
                await worker.queue_update(done(b))
        await worker.queue_update(done(a, attempts=4, meta={"step": 4}))
        await worker.flush()
        """,
    )
    assert seen["rows"] == [
        ["a", "succeeded", 4, {"step": 4}, []],
        ["b", "succeeded", 1, {}, []],
    ]
    assert seen["heard"][0] == ["in transaction", "a", "b", "a", "a", "a"]


def test_a_batch_that_fails_stays_ahead_of_newer_results(
    backend: Path, database_url: str
) -> None:
    seen = see(
        backend,
        database_url,
        """
        a, b = await taken(chancy, "a"), await taken(chancy, "b")
        recording.failures = 1
        await worker.queue_update(done(a))
        try:
            await worker.flush()
        except psycopg.OperationalError:
            recording.heard.append([row[1] for row in await rows(chancy)])
        await worker.queue_update(done(b))
        await worker.flush()
        await worker.flush()
        """,
    )
    assert [row[:2] for row in seen["rows"]] == [["a", "succeeded"], ["b", "succeeded"]]
    assert seen["heard"] == [
        ["in transaction", "a"],
        ["running", "running"],
        ["in transaction", "a", "b"],
        ["saved", "a"],
        ["saved", "b"],
    ]


def test_rows_are_locked_in_the_order_of_pushes(
    backend: Path, database_url: str
) -> None:
    """A push of the same unique keys locks them in their order; both would wait for ever."""
    seen = see(
        backend,
        database_url,
        """
        notes = ["d", "a", "c", "b"]
        jobs = {note: await taken(chancy, note, f"key {note}") for note in notes}
        for note in notes:
            await worker.queue_update(done(jobs[note]))
        async with await psycopg.AsyncConnection.connect(chancy.dsn) as other:
            query = "SELECT FROM billing_jobs WHERE id = %s FOR UPDATE"
            await other.execute(query, [jobs["c"].id])
            saving = asyncio.create_task(worker.flush())
            async with asyncio.timeout(20):
                while not (await (await other.execute(
                    "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                )).fetchall()):
                    await asyncio.sleep(0.05)
                free = await (await other.execute(
                    "SELECT kwargs ->> 'note' FROM billing_jobs ORDER BY 1"
                    " FOR UPDATE SKIP LOCKED"
                )).fetchall()
                recording.heard.append(["not locked yet", *(note for (note,) in free)])
                await other.rollback()
                await saving
        """,
    )
    assert seen["heard"][0] == ["not locked yet", "c", "d"]
    assert {row[1] for row in seen["rows"]} == {"succeeded"}
