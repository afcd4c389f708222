"""Jobs that are taken in one statement are those that Chancy takes, as Chancy has them."""

import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

from chancy import Worker

from .support import TEMPLATE, environment, migrate, run
from .test_chancy_contract import uses

PREAMBLE = '''
import asyncio
import dataclasses
import json

import psycopg
from chancy import Chancy, Queue, QueuedJob
from chancy.executors.base import Executor
from psycopg.rows import dict_row

from app.billing.workers import chancy_claims
from app.billing.workers.chancy_connections import autocommit
from app.billing.workers.chancy_executors import AsyncExecutor
from app.billing.workers.chancy_initialization import create_chancy
from app.billing.workers.chancy_worker import Worker

QUEUE = Queue("default", executor=Chancy.Executor.Async, concurrency=1100, polling_interval=60)
INSERT = """
INSERT INTO billing_jobs (id, queue, func, kwargs, limits, meta, errors, attempts,
    max_attempts, priority, unique_key, completed_at, scheduled_at)
VALUES (gen_random_uuid(), 'default', 'a.b', '{"a": [1, null]}', '[{"t": "time", "v": 9}]',
    '{"m": {}}', '[{"traceback": "t", "attempt": 0}]', 1, 5, 7, 'key', NOW(), NOW()),
    (gen_random_uuid(), 'default', 'a.b', DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT,
    DEFAULT, DEFAULT, DEFAULT, DEFAULT, DEFAULT)
"""


async def rows(chancy, query="SELECT * FROM billing_jobs ORDER BY priority DESC"):
    async with chancy.pool.connection() as connection:
        cursor = connection.cursor(row_factory=dict_row)
        return await (await cursor.execute(query)).fetchall()


async def main():
    chancy = create_chancy()
    async with chancy:
        worker = Worker(chancy, register_signal_handlers=False)
        print(json.dumps(await happens(chancy, worker)))


'''


def see(backend: Path, url: str, what: str) -> Any:
    """Runs what happens in the backend's workers; returns what it returns."""
    migrate(backend, "app.billing", url)
    body = textwrap.indent(textwrap.dedent(what), "    ")
    script = (
        f"{PREAMBLE}async def happens(chancy, worker):\n{body}\n\nasyncio.run(main())"
    )
    variables = environment(WORKERS_DATABASE_URL=url)
    result = run(sys.executable, "-c", script, cwd=backend, env=variables)
    return json.loads(result.stdout.splitlines()[-1])


def test_the_next_jobs_are_those_that_chancy_would_take() -> None:
    path = TEMPLATE / "template/{{ service_root }}/workers/chancy_claims.py"

    def choice(text: str) -> str:
        found = re.search(
            r"SELECT\s+id\s+FROM\s+{jobs}(.*?)FROM\s+selected", text, re.S
        )
        assert found, text
        names = {
            "up_to": "maximum_jobs_to_fetch",
            "worker": "worker_id",
            "{jobs} j": "{jobs}",
        }
        words = " ".join(found[1].split())
        for ours, theirs in names.items():
            words = re.sub(rf"{re.escape(ours)}(?!\w)", theirs, words)
        return words

    (theirs,) = (
        text
        for text in uses("chancy.worker:Worker.fetch_jobs")
        if "WITH selected_jobs" in text
    )

    assert choice(path.read_text()) == choice(theirs), Worker.fetch_jobs


def test_a_row_becomes_the_job_that_chancy_makes_of_it(
    backend: Path, database_url: str
) -> None:
    taken, unpacked = see(
        backend,
        database_url,
        """
        async with autocommit(chancy.pool) as connection:
            await connection.execute(INSERT)
            taken = await chancy_claims.take(worker, QUEUE, connection, up_to=9)
        unpacked = [QueuedJob.unpack(row) for row in await rows(chancy)]
        assert taken == unpacked and len(taken) == 2
        assert all(job.claim_id and job.started_at for job in taken)
        assert [job.priority for job in taken] == [7, 0]
        return [[repr(vars(job)) for job in jobs] for jobs in (taken, unpacked)]
        """,
    )

    def fields(text: str) -> set[str]:
        return set(re.findall(r"'(\w+)': ", text))

    assert [*map(fields, taken)] == [*map(fields, unpacked)]


def test_a_job_that_succeeds_becomes_what_chancy_makes_of_it(
    backend: Path, database_url: str
) -> None:
    ours, theirs = see(
        backend,
        database_url,
        """
        async with autocommit(chancy.pool) as connection:
            await connection.execute(INSERT)
            job, _ = await chancy_claims.take(worker, QUEUE, connection, up_to=2)
        executor = AsyncExecutor(worker, QUEUE)
        done = []
        for kind in (AsyncExecutor, Executor):
            await kind.on_job_completed(executor, job=job, result=1)
            done.append(worker.outgoing.get_nowait())
        assert done[0].completed_at <= done[1].completed_at
        return [repr(dataclasses.replace(each, completed_at=None)) for each in done]
        """,
    )

    assert ours == theirs and "SUCCEEDED" in ours


def test_a_queue_takes_more_jobs_than_one_claim_holds(
    backend: Path, database_url: str
) -> None:
    running = see(
        backend,
        database_url,
        """
        await chancy.declare(QUEUE)
        async with chancy.pool.connection() as connection:
            await connection.execute(
                "INSERT INTO billing_jobs (id, queue, func, kwargs) SELECT "
                "gen_random_uuid(), 'default', 'asyncio.sleep', '{\\"delay\\": 600}' "
                "FROM generate_series(1, 1200)"
            )
        worker.shutdown_timeout = 0
        query = "SELECT count(*) AS n FROM billing_jobs WHERE state = 'running'"
        async with worker, asyncio.timeout(30):
            while (running := (await rows(chancy, query))[0]["n"]) < 1100:
                await asyncio.sleep(0.05)
            return running
        """,
    )

    assert running == 1100


def test_statements_of_a_team_s_connection_stay_one_transaction(
    backend: Path, database_url: str
) -> None:
    kept, autocommits = see(
        backend,
        database_url,
        """
        async with autocommit(chancy.pool) as connection:
            assert connection.autocommit
        try:
            async with autocommit(chancy.pool) as connection, connection.transaction():
                raise RuntimeError
        except RuntimeError:
            pass
        autocommits = []
        for _ in range(20):
            async with chancy.pool.connection() as connection:
                autocommits.append(connection.autocommit)
        try:
            async with chancy.pool.connection() as connection:
                await connection.execute(INSERT)
                raise RuntimeError
        except RuntimeError:
            return len(await rows(chancy)), autocommits
        """,
    )

    assert kept == 0 and set(autocommits) == {False}
