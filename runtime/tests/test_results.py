"""Results that are saved in batches keep every promise of Chancy for single results."""

import asyncio
import dataclasses
import json
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from chancy import QueuedJob
from chancy.plugin import Plugin
from chancy_runtime import Chancy, Worker
from psycopg import AsyncConnection
from psycopg.rows import dict_row

from harness.recorder import plain_chancy
from harness.starts import until_locked

pytestmark = pytest.mark.anyio


class Recording(Plugin):
    """Records the calls of the two hooks for updates."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[list[str]] = []
        self.failures = 0

    @staticmethod
    def get_identifier() -> str:
        return "recording"

    async def on_jobs_updated_in_transaction(
        self, *, worker: Any, jobs: Any, cursor: Any
    ) -> None:
        notes = [str((job.kwargs or {})["note"]) for job in jobs]
        self.heard.append(["in transaction", *notes])
        if self.failures:
            self.failures -= 1
            raise psycopg.OperationalError("the connection is gone")

    async def on_job_updated(self, *, worker: Any, job: Any) -> None:
        self.heard.append(["saved", str((job.kwargs or {})["note"])])


@dataclasses.dataclass
class Saving:
    """A Worker that has not started; a test saves its results."""

    chancy: Chancy
    worker: Worker
    recording: Recording

    async def taken(self, note: str, unique_key: str | None = None) -> QueuedJob:
        """A job that the worker has taken."""
        async with self.chancy.pool.connection() as connection:
            cursor = connection.cursor(row_factory=dict_row)
            await cursor.execute(
                "INSERT INTO billing_jobs "
                "(id, queue, func, kwargs, state, unique_key, claim_id) VALUES "
                "(gen_random_uuid(), 'default', 'a.b', %s, 'running', %s, "
                "gen_random_uuid()) RETURNING *",
                [json.dumps({"note": note}), unique_key],
            )
            row = await cursor.fetchone()
            assert row
            return QueuedJob.unpack(row)

    async def rows(self) -> list[list[Any]]:
        async with self.chancy.pool.connection() as connection:
            cursor = await connection.execute(
                "SELECT kwargs ->> 'note', state, attempts, meta, errors "
                "FROM billing_jobs ORDER BY 1"
            )
            return [list(row) for row in await cursor.fetchall()]

    async def states(self) -> list[list[Any]]:
        return [row[:2] for row in await self.rows()]


@pytest.fixture
async def saving(tables: str) -> AsyncIterator[Saving]:
    recording = Recording()
    async with plain_chancy(tables, plugins=[recording]) as chancy:
        worker = Worker(chancy, register_signal_handlers=False)
        yield Saving(chancy, worker, recording)


def done(job: QueuedJob, **changes: Any) -> QueuedJob:
    changes = {"state": QueuedJob.State.SUCCEEDED, "attempts": 1, **changes}
    return dataclasses.replace(job, **changes)


async def test_a_batch_is_saved_and_reported_in_order(saving: Saving) -> None:
    c, a, b = [await saving.taken(note, note) for note in "cab"]
    error = {"traceback": 'a "quoted" \\ 漢字 \0', "attempt": 0}
    await saving.worker.queue_update(done(c, meta={"steps": [1, {"two": None}]}))
    await saving.worker.queue_update(
        done(a, state=QueuedJob.State.FAILED, errors=[error])
    )
    await saving.worker.queue_update(done(b))
    await saving.worker.flush()

    error = {"traceback": 'a "quoted" \\ 漢字 \\0', "attempt": 0}
    assert await saving.rows() == [
        ["a", "failed", 1, {}, [error]],
        ["b", "succeeded", 1, {}, []],
        ["c", "succeeded", 1, {"steps": [1, {"two": None}]}, []],
    ]
    assert saving.recording.heard == [
        ["in transaction", "c", "a", "b"],
        *(["saved", note] for note in "cab"),
    ]


async def test_a_result_whose_claim_is_gone_changes_nothing(saving: Saving) -> None:
    jobs = [await saving.taken(note) for note in "abc"]
    async with saving.chancy.pool.connection() as connection:
        await connection.execute(
            "UPDATE billing_jobs SET claim_id = gen_random_uuid() WHERE id = %s",
            [jobs[1].id],
        )
    for job in jobs:
        await saving.worker.queue_update(done(job))
    await saving.worker.flush()

    assert await saving.states() == [
        ["a", "succeeded"],
        ["b", "running"],
        ["c", "succeeded"],
    ]
    assert saving.recording.heard == [
        ["in transaction", "a", "c"],
        ["saved", "a"],
        ["saved", "c"],
    ]


async def test_a_claim_that_is_lost_while_a_save_waits_for_its_row_is_noticed(
    saving: Saving, tables: str
) -> None:
    job = await saving.taken("a")
    await saving.worker.queue_update(done(job))
    async with await AsyncConnection.connect(tables) as other:
        await other.execute("UPDATE billing_jobs SET claim_id = gen_random_uuid()")
        flush = asyncio.create_task(saving.worker.flush())
        await until_locked(other)
        await other.commit()
        await flush

    assert await saving.rows() == [["a", "running", 0, {}, []]]
    assert saving.recording.heard == []


async def test_two_results_of_one_job_follow_each_other(saving: Saving) -> None:
    a, b = await saving.taken("a"), await saving.taken("b")
    for step in (1, 2, 3):
        await saving.worker.queue_update(
            done(a, state=QueuedJob.State.RUNNING, attempts=step, meta={"step": step})
        )
        if step == 1:
            await saving.worker.queue_update(done(b))
    await saving.worker.queue_update(done(a, attempts=4, meta={"step": 4}))
    await saving.worker.flush()

    assert await saving.rows() == [
        ["a", "succeeded", 4, {"step": 4}, []],
        ["b", "succeeded", 1, {}, []],
    ]
    assert saving.recording.heard[0] == ["in transaction", "a", "b", "a", "a", "a"]


async def test_a_batch_that_fails_stays_ahead_of_newer_results(saving: Saving) -> None:
    a, b = await saving.taken("a"), await saving.taken("b")
    saving.recording.failures = 1
    await saving.worker.queue_update(done(a))
    with pytest.raises(psycopg.OperationalError):
        await saving.worker.flush()
    assert await saving.states() == [["a", "running"], ["b", "running"]]
    await saving.worker.queue_update(done(b))
    await saving.worker.flush()
    await saving.worker.flush()

    assert await saving.states() == [["a", "succeeded"], ["b", "succeeded"]]
    assert saving.recording.heard == [
        ["in transaction", "a"],
        ["in transaction", "a", "b"],
        ["saved", "a"],
        ["saved", "b"],
    ]


async def test_rows_are_locked_in_the_order_of_pushes(
    saving: Saving, tables: str
) -> None:
    """A push of the same unique keys locks them in this order; else both would deadlock."""
    notes = ["d", "a", "c", "b"]
    jobs = {note: await saving.taken(note, f"key {note}") for note in notes}
    for note in notes:
        await saving.worker.queue_update(done(jobs[note]))
    async with await AsyncConnection.connect(tables) as other:
        row = "SELECT FROM billing_jobs WHERE id = %s FOR UPDATE"
        await other.execute(row, [jobs["c"].id])
        flush = asyncio.create_task(saving.worker.flush())
        await until_locked(other)
        cursor = await other.execute(
            "SELECT kwargs ->> 'note' FROM billing_jobs ORDER BY 1 "
            "FOR UPDATE SKIP LOCKED"
        )
        not_locked_yet = [note for (note,) in await cursor.fetchall()]
        await other.rollback()
        await flush

    assert not_locked_yet == ["c", "d"]
    assert {state for _, state in await saving.states()} == {"succeeded"}
