"""The commands that show and change jobs and queues, beside running workers."""

import argparse
import asyncio
import json
import logging
import os
import pty
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sentry_sdk
from chancy_runtime import Chancy
from chancy_runtime.commands import filters, listings
from chancy_runtime.jobs import depths
from chancy_runtime.jobs.rows import statement
from chancy_runtime.postgres import connections, operations
from operated_service import (
    end_of_threads,
    succeeds,
    waits,
    waits_in_a_process,
    waits_in_a_thread,
    working,
)
from psycopg import ClientCursor

from harness.commands import environment
from harness.databases import database, query
from harness.program import Commands, in_a_thread
from harness.recorder import Recorder, make_tables, plain_chancy
from harness.starts import wait_for_lock

pytestmark = pytest.mark.anyio

SECRET = "hunter2"
NAMES = ["async", "process", "threaded"]
FAILURE = '[{"attempt": 0, "traceback": "Traceback (most recent call last):\\n' + (
    '  File \\"billing.py\\", line 1, in run\\n    pay()\\nRuntimeError: no\\u001b[2J money"}]'
)


def add(url: str, **columns: object) -> str:
    """Adds a job in a state; returns its id."""
    values = {
        "func": "operated_service.succeeds",
        "queue": "async",
        "state": "pending",
        "kwargs": json.dumps({"password": SECRET}),
        **columns,
    }
    if values["state"] == "failed":
        ended = {"attempts": 1, "errors": FAILURE, "completed_at": "now"}
        values = {"claim_id": "1a4f3c1c-0000-4000-8000-000000000001", **ended, **values}
        if "kwargs" not in columns:
            values["kwargs"] = "{}"
    ((id,),) = query(
        url,
        f"INSERT INTO billing_jobs (id, {', '.join(values)}) VALUES "
        f"(gen_random_uuid(), {', '.join(['%s'] * len(values))}) RETURNING id::text",
        *values.values(),
    )
    return str(id)


def job(url: str, id: str, columns: str = "state") -> tuple[Any, ...]:
    (found,) = query(url, f"SELECT {columns} FROM billing_jobs WHERE id = %s", id)
    return found


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.02)


# --- listings ------------------------------------------------------------------------


def test_jobs_are_filtered_and_counted(migrated_url: str, workers: Commands) -> None:
    failed = [add(migrated_url, state="failed") for _ in range(3)]
    old = add(
        migrated_url,
        state="failed",
        created_at="2026-01-01",
        completed_at="2026-01-02 03:04:05+01",
    )
    heavy = add(migrated_url, queue="heavy", func="billing.reports.build")

    def ids(*arguments: str) -> set[str]:
        shown = workers("jobs", "--json", *arguments, url=migrated_url)
        assert shown.status == 0
        return {each["id"] for each in shown.json["jobs"]}

    assert ids() == {*failed, old, heavy}
    assert ids("--state", "failed") == {*failed, old}
    assert ids("--state", "failed", "--since", "1h") == {*failed}
    assert ids("--before", "2026-01-02T02:05") == {old}
    assert ids("--since", "2026-01-02T02:04:05Z", "--before", "1h") == {old}
    assert ids("--queue", "heavy", "--queue", "none") == {heavy}
    assert ids("--func", "build") == ids("--func", "billing.reports.build") == {heavy}
    assert ids("--func", "uild") == ids("--since", "0s") == set()
    assert ids(old, heavy) == {old, heavy}
    some = workers("jobs", "--json", "--limit", "2", url=migrated_url).json
    assert len(some["jobs"]) == 2 and some["more"] is True


def test_a_failed_job_is_shown_with_its_error_and_times_in_utc(
    migrated_url: str, workers: Commands
) -> None:
    id = add(migrated_url, state="failed", completed_at="2026-01-02 03:04:05+01")

    shown = workers("jobs", "--state", "failed", url=migrated_url).output
    head, line = shown.splitlines()
    assert head.split()[:2] == ["ID", "STATE"] and "DUE" not in head
    assert head.index("ERROR") == line.index("RuntimeError")
    assert line.startswith(id) and "2026-01-02T02:04:05Z" in line
    # Control characters for the terminal are escaped.
    assert line.endswith("RuntimeError: no\\x1b[2J money")
    in_full = workers("jobs", id, url=migrated_url).output
    assert '  File "billing.py", line 1, in run\n' in in_full
    missing = "00000000-0000-7000-8000-000000000000"
    gone = workers("jobs", id, missing, url=migrated_url)
    assert gone.status == 1 and id in gone.output
    assert gone.errors == (
        f"python -m app.billing.workers: there is no job {missing}\n"
    )


def test_queues_show_how_many_jobs_wait_and_for_how_long(
    migrated_url: str, workers: Commands
) -> None:
    query(
        migrated_url,
        "INSERT INTO billing_queues (name, executor, tags, concurrency, resume_at, state) "
        "VALUES ('async', %s, '{.*}', 7, '2030-01-01', 'paused')",
        Chancy.Executor.Async.value,
    )
    # The first one was pushed by a process that imported the job's module yesterday.
    for state, attempts, due in (
        *(("pending", 0, "NOW() - INTERVAL '1 d'"), ("retrying", 2, "NOW()")),
        *(("retrying", 1, "'-infinity'"), ("pending", 0, "NOW() + INTERVAL '1 h'")),
        *(("retrying", 1, "'infinity'"), ("running", 0, "NOW()")),
    ):
        id = add(migrated_url, state=state, attempts=attempts, max_attempts=3)
        query(
            migrated_url,
            f"UPDATE billing_jobs SET scheduled_at = {due}, "
            f"created_at = NOW() - INTERVAL '90 s' WHERE id = '{id}'",
        )
    add(migrated_url, queue="gone", state="failed")

    shown = workers("queues", "--json", url=migrated_url).json

    waiting = workers("jobs", "--json", "--state", "pending", url=migrated_url).json
    assert all(each["due_at"] >= each["pushed_at"] for each in waiting["jobs"])
    (first, second) = shown["queues"]
    assert 90 <= first.pop("oldest_due_seconds") < 600
    assert first == {
        "name": "async",
        "declared": True,
        "state": "paused",
        "resume_at": "2030-01-01T00:00:00Z",
        "executor": "async",
        "concurrency": 7,
        "rate_limit": None,
        "rate_limit_window": None,
        "tags": [".*"],
        "workers": 0,
        **{"due": 3, "scheduled": 2, "running": 1, "failed": 0, "succeeded": 0},
    }
    assert (second["name"], second["declared"], second["failed"]) == ("gone", False, 1)
    text = workers("queues", url=migrated_url).output
    assert "paused until 2030-01-01T00:00:00Z" in text and "not declared" in text


async def test_a_job_waits_from_its_push_and_not_from_the_start_of_the_process(
    tables: str, workers: Commands
) -> None:
    """By default, scheduled_at is the time at which the decorator ran."""
    decorated = succeeds.job.with_scheduled_at(datetime.now(UTC) - timedelta(hours=5))
    async with plain_chancy(tables) as chancy:
        await chancy.push(decorated)

    shown = await in_a_thread(workers, "queues", "--json", url=tables)
    (queue,) = shown.json["queues"]

    assert (queue["name"], queue["due"]) == ("async", 1)
    assert queue["oldest_due_seconds"] < 600


def test_on_tables_without_the_indexes_it_says_which_jobs_are_not_counted(
    migrated_url: str, workers: Commands
) -> None:
    query(migrated_url, "DROP INDEX billing_runtime_jobs_later")
    add(migrated_url)

    shown = workers("queues", url=migrated_url)
    (queue,) = workers("queues", "--json", url=migrated_url).json["queues"]

    assert shown.status == 0 and "DUE" not in shown.output
    assert shown.errors.endswith("run python -m app.billing.workers migrate\n")
    assert (queue["due"], queue["oldest_due_seconds"]) == (None, None)


def test_no_listing_reads_a_deep_queue_to_its_end(
    migrated_url: str, monkeypatch: pytest.MonkeyPatch, workers: Commands
) -> None:
    """Counted in buffers, with statistics from before and after the rows came."""
    most = 100
    for module in (listings, depths):
        monkeypatch.setattr(module, "MOST", most)
    query(migrated_url, "ALTER TABLE billing_jobs SET (autovacuum_enabled = off)")
    query(migrated_url, "VACUUM ANALYZE billing_jobs")
    touched = []
    for first, last in ((1, 20_000), (20_001, 80_000)):
        query(migrated_url, FILL.format(first=first, last=last))
        for statistics in ("SELECT 1", "ANALYZE billing_jobs"):
            query(migrated_url, statistics)
            for text in (listings._QUEUES, listings._WORKERS):
                touched.append(buffers_of(migrated_url, text, most))
    shown = workers("queues", "--json", url=migrated_url).json

    assert max(touched[4:]) < 1.5 * max(touched[:4])
    counts = [each for queue in shown["queues"] for each in map(queue.get, COUNTS)]
    assert counts == [most] * 15
    text = workers("queues", url=migrated_url).output
    assert text.count(f"{most}+") == 15
    # With these statistics the planner would read the table from its start.
    query(migrated_url, "UPDATE billing_jobs SET state = 'failed'")
    query(migrated_url, "ANALYZE billing_jobs")
    query(migrated_url, "UPDATE billing_jobs SET state = 'succeeded'")
    query(migrated_url, "VACUUM billing_jobs")
    for text in (listings._QUEUES, listings._WORKERS):
        assert buffers_of(migrated_url, text, most) < max(touched)


COUNTS = ("due", "scheduled", "running", "failed", "succeeded")
FILL = """
INSERT INTO billing_jobs (id, func, queue, state, scheduled_at, completed_at)
SELECT (lpad(to_hex(i), 12, '0') || '7' || substr(md5(i::text), 1, 19))::uuid,
    'a.b', 'q' || i % 3,
    (ARRAY['pending', 'retrying', 'running', 'failed', 'succeeded'])[1 + i % 5],
    NOW() + (i % 1000 - 500) * INTERVAL '1 h', NOW()
FROM generate_series({first}, {last}) AS i
"""


def buffers_of(url: str, text: Any, most: int) -> int:
    values = {"limit": 51, "most": most}
    return buffers(url, statement(text, "billing_"), values)


def buffers(url: str, query: bytes, values: dict[str, Any]) -> int:
    """The buffers that a statement of a command touches."""
    with psycopg.connect(url) as connection:
        settings = operations.SETTINGS
        change = [True, [*settings], [*settings.values()]]
        connection.execute(connections._CHANGE, change)
        explained = b"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) " + query
        row = ClientCursor(connection).execute(explained, values).fetchone()
    assert row
    plan = row[0][0]["Plan"]
    return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])


@pytest.mark.parametrize(
    "typed",
    [
        "",
        "--state failed",
        "--state failed --state running --since 1h",
        "--state failed --func b",
        "--queue q1 --since 1h",
    ],
)
def test_jobs_are_found_by_an_index(typed: str, deep_url: str) -> None:
    """Reading the table takes 1,500 buffers; walking along one of its indexes, 80,000."""
    parser = argparse.ArgumentParser()
    filters.add_filters(parser, states=listings._STATES, usual="all", limit=50)
    arguments = parser.parse_args(typed.split())
    app = plain_chancy(deep_url)

    query, values = filters.selection(app, arguments, listings._JOB, 51, [])

    assert buffers(deep_url, query, values) < 100


@pytest.fixture(scope="module")
def deep_url(server_url: str) -> Iterator[str]:
    """A database with many jobs, of which the oldest few have failed."""
    with database(server_url) as url:
        make_tables(url)
        query(url, FILL.format(first=1, last=80_000))
        query(url, "UPDATE billing_jobs SET state = 'succeeded', completed_at = NOW()")
        query(
            url,
            "UPDATE billing_jobs SET state = 'failed' "
            "WHERE id < '00000000-0020-7000-8000-000000000000'",
        )
        query(url, "VACUUM ANALYZE billing_jobs")
        yield url


async def test_workers_and_schedules_are_shown(tables: str, workers: Commands) -> None:
    lost = add(tables, state="running", taken_by="a lost worker")
    query(
        tables,
        "INSERT INTO billing_cron (unique_key, job, cron, next_run) VALUES ('cron:digest', "
        """'{"f": "app.billing.workers.digest", "q": "async"}', '0 7 * * *', """
        "'2026-01-02 03:04:05+01')",
    )
    async with working(tables) as worker:
        taken = "SELECT 1 FROM billing_workers WHERE queues @> %s"
        await until(lambda: query(tables, taken, NAMES))
        shown = await in_a_thread(workers, "workers", "--json", url=tables)
        text = await in_a_thread(workers, "workers", url=tables)
        queues = await in_a_thread(workers, "queues", "--json", url=tables)
    schedules = await in_a_thread(workers, "cron", url=tables)

    of_lost, alive = sorted(shown.json["workers"], key=lambda each: each["alive"])
    assert (alive["worker"], alive["alive"]) == (worker.worker_id, True)
    assert {*alive["queues"]} >= {*NAMES}
    assert (of_lost["worker"], of_lost["running"]) == ("a lost worker", 1)
    taken_by = {each["name"]: each["workers"] for each in queues.json["queues"]}
    assert [taken_by[name] for name in NAMES] == [1, 1, 1]
    assert "lost" in text.output and "alive" in text.output
    head, line = schedules.output.splitlines()
    assert line.split()[:6] == ["cron:digest", *"0 7 * * *".split()]
    assert "2026-01-02T02:04:05Z (due)  digest" in line
    assert lost


# --- retry ---------------------------------------------------------------------------


async def test_a_failed_job_runs_again_from_its_first_attempt(
    tables: str, workers: Commands
) -> None:
    id = add(tables, state="failed", meta='{"rescues": 4, "mine": 1}', taken_by="x")
    async with working(tables):
        retried = await in_a_thread(workers, "retry", id, url=tables)
        await until(lambda: job(tables, id) == ("succeeded",))

    assert (retried.status, retried.output) == (0, "retried 1 job\n")
    assert job(tables, id, "attempts, max_attempts, meta") == (1, 1, {"mine": 1})
    assert job(tables, id, "jsonb_array_length(errors)") == (1,)


def test_only_failed_jobs_are_retried_and_the_others_named(
    migrated_url: str, workers: Commands
) -> None:
    ids = {
        state: add(migrated_url, state=state)
        for state in ("failed", "pending", "running", "succeeded")
    }
    unknown = "00000000-0000-7000-8000-000000000000"

    retried = workers("retry", *ids.values(), unknown, "--json", url=migrated_url)

    assert retried.status == 1
    left = {each["id"]: each["reason"] for each in retried.json["left"]}
    assert retried.json["retried"] == [ids.pop("failed")]
    assert left.pop(unknown) == "there is no such job"
    assert left == {id: f"its state is {state}" for state, id in ids.items()}
    for state, id in ids.items():
        assert job(migrated_url, id) == (state,)


def test_jobs_are_retried_by_a_filter_up_to_the_limit(
    migrated_url: str, workers: Commands
) -> None:
    for queue in ("async", "heavy"):
        for _ in range(3):
            add(migrated_url, state="failed", queue=queue)
    waiting = add(migrated_url, queue="heavy", scheduled_at="2100-01-01")

    first = workers(
        "retry", "--queue", "heavy", "--limit", "2", "--json", url=migrated_url
    )
    second = workers("retry", "--queue", "heavy", url=migrated_url)

    assert len(first.json["retried"]) == 2 and first.json["more"] is True
    assert (second.status, second.output) == (0, "retried 1 job\n")
    assert query(
        migrated_url, "SELECT count(*) FROM billing_jobs WHERE state = 'failed'"
    ) == [(3,)]
    assert job(migrated_url, waiting) == ("pending",)


def test_of_several_jobs_with_one_unique_key_the_newest_runs_again(
    migrated_url: str, workers: Commands
) -> None:
    ids = sorted(
        add(migrated_url, state="failed", unique_key="cron:digest") for _ in range(3)
    )

    retried = workers("retry", "--state", "failed", "--json", url=migrated_url)
    again = workers("retry", ids[0], url=migrated_url)

    assert retried.status == 0 and retried.json["retried"] == [ids[2]]
    reason = f"the job {ids[2]} waits or runs with its unique key cron:digest"
    assert [each["reason"] for each in retried.json["left"]] == [reason] * 2
    assert (again.status, again.errors) == (1, f"left {ids[0]} alone: {reason}\n")
    assert [job(migrated_url, id)[0] for id in ids] == ["failed", "failed", "retrying"]


@contextmanager
def held(url: str, statement: str) -> Iterator[psycopg.Connection[Any]]:
    """A transaction that has executed a statement, and is committed after the block."""
    with psycopg.connect(url) as connection:
        connection.execute(statement.encode())
        yield connection


def test_two_retries_at_once_are_one(
    migrated_url: str, workers: Commands, backend: Recorder
) -> None:
    id = add(migrated_url, state="failed")
    with ThreadPoolExecutor() as pool:
        with held(
            migrated_url, f"SELECT FROM billing_jobs WHERE id = '{id}' FOR UPDATE"
        ):
            both = [
                pool.submit(
                    backend.command,
                    "retry",
                    id,
                    "--json",
                    url=migrated_url,
                    check=False,
                )
                for _ in range(2)
            ]
            wait_for_lock(migrated_url, 2)
        ended = [each.result() for each in both]

    assert sorted(each.returncode for each in ended) == [0, 1]
    retried = [json.loads(each.stdout) for each in ended]
    assert sorted(each["retried"] for each in retried) == [[], [id]]
    (left,) = [left["reason"] for each in retried for left in each["left"]]
    assert left == "it has changed since it was found"


def test_a_key_that_is_pushed_at_the_same_time_is_not_an_error(
    migrated_url: str, workers: Commands
) -> None:
    id = add(migrated_url, state="failed", unique_key="key")
    other = add(migrated_url, state="failed", unique_key="other")
    with ThreadPoolExecutor() as pool:
        with held(
            migrated_url,
            "INSERT INTO billing_jobs (id, func, queue, unique_key) "
            "VALUES (gen_random_uuid(), 'a.b', 'async', 'key')",
        ):
            retried = pool.submit(
                workers, "retry", "--state", "failed", url=migrated_url
            )
            wait_for_lock(migrated_url)
        ended = retried.result()

    assert (ended.status, ended.output) == (0, "retried 1 job\n")
    assert (
        f"left {id} alone: a job with its unique key key was pushed just now"
        in ended.errors
    )
    assert job(migrated_url, id) == ("failed",)
    assert job(migrated_url, other) == ("retrying",)


# --- cancel --------------------------------------------------------------------------


def test_jobs_that_wait_are_cancelled_and_ended_ones_stay(
    migrated_url: str, workers: Commands
) -> None:
    waiting = [
        add(migrated_url),
        add(migrated_url, scheduled_at="2100-01-01", unique_key="key"),
        add(migrated_url, state="retrying", attempts=1, max_attempts=3),
    ]
    done = add(migrated_url, state="succeeded", unique_key="key")

    named = workers("cancel", *waiting, done, url=migrated_url)

    assert (named.status, named.output) == (1, "cancelled 3 jobs\n")
    assert named.errors == f"left {done} alone: its state is succeeded\n"
    for id in waiting:
        assert job(migrated_url, id, "state, completed_at IS NOT NULL") == (
            "failed",
            True,
        )
    assert job(migrated_url, done) == ("succeeded",)
    shown = workers("jobs", "--state", "failed", url=migrated_url).output
    assert shown.count("cancelled by the command cancel") == 3


@pytest.mark.parametrize(
    ("slow", "expected"),
    [
        (waits, "is interrupted at its next await"),
        (waits_in_a_thread, "runs to its end, because a thread cannot be interrupted"),
        (waits_in_a_process, "is interrupted"),
    ],
)
async def test_a_running_job_is_cancelled_if_its_executor_can(
    slow: Any,
    expected: str,
    tables: str,
    workers: Commands,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    end_of_threads.clear()
    started = tmp_path / "started"
    events: list[object] = []
    async with working(tables) as worker, sentry(events):
        executor = worker.executors
        pushed = await worker.chancy.push(slow.job.with_kwargs(started=str(started)))
        id = str(pushed.identifier)
        await until(started.exists)
        with caplog.at_level(logging.INFO):
            ended = await in_a_thread(workers, "cancel", id, url=tables)
            if slow is waits_in_a_thread:
                await until(lambda: worker.cancelled)
                end_of_threads.set()
            await until(lambda: not any(map(len, executor.values())))
        # The slot is free, and the job's result is not saved.
        next_id = str((await worker.chancy.push(succeeds)).identifier)
        await until(lambda: job(tables, next_id) == ("succeeded",))
        await worker.flush()

    assert (ended.status, ended.errors) == (0, "")
    assert ended.output.startswith(
        f"cancelled 1 job\n1 of them was running, and {expected}"
    )
    state, attempts, errors = job(tables, id, "state, attempts, errors")
    assert (state, attempts) == ("failed", 0)
    assert [each["traceback"] for each in errors] == ["cancelled by the command cancel"]
    records = [each for each in caplog.records if id in each.getMessage()]
    assert [each for each in records if each.levelno > logging.INFO] == []
    assert events == []
    assert worker.cancelled == set()


@asynccontextmanager
async def sentry(events: list[object]) -> AsyncIterator[None]:
    """Collects the events that the block would send to Sentry."""

    def keep(event: Any, _hint: Any) -> None:
        events.append(event)

    with sentry_sdk.isolation_scope():
        sentry_sdk.init("http://key@127.0.0.1:9/1", before_send=keep)
        try:
            yield
        finally:
            sentry_sdk.init(dsn="")


def test_a_job_that_ends_while_it_is_cancelled_stays_as_it_ended(
    migrated_url: str, workers: Commands
) -> None:
    id = add(migrated_url, state="running")
    with ThreadPoolExecutor() as pool:
        with held(
            migrated_url,
            f"UPDATE billing_jobs SET state = 'succeeded' WHERE id = '{id}'",
        ):
            cancelled = pool.submit(workers, "cancel", id, url=migrated_url)
            wait_for_lock(migrated_url)
        ended = cancelled.result()

    assert (ended.status, ended.output) == (1, "cancelled 0 jobs\n")
    assert ended.errors == f"left {id} alone: it has changed since it was found\n"
    assert job(migrated_url, id) == ("succeeded",)


# --- purge ---------------------------------------------------------------------------


def test_purge_deletes_ended_jobs_and_no_running_ones(
    migrated_url: str, workers: Commands
) -> None:
    ids = {
        state: add(migrated_url, state=state)
        for state in ("failed", "succeeded", "pending", "running")
    }

    refused = workers("purge", ids["running"], "--yes", url=migrated_url)
    purged = workers("purge", "--queue", "async", "--yes", "--json", url=migrated_url)
    waiting = workers("purge", "--state", "pending", "--yes", url=migrated_url)

    assert (refused.status, refused.output) == (1, "purged 0 jobs\n")
    assert refused.errors == f"left {ids['running']} alone: its state is running\n"
    assert sorted(purged.json["purged"]) == sorted([ids["failed"], ids["succeeded"]])
    assert waiting.output == "purged 1 job\n"
    assert query(migrated_url, "SELECT id::text FROM billing_jobs") == [
        (ids["running"],)
    ]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Types an answer on the terminal of the command."""
    master, terminal = pty.openpty()
    with os.fdopen(terminal, "r") as stdin, os.fdopen(master, "w") as keyboard:
        monkeypatch.setattr(sys, "stdin", stdin)

        def type_(text: str) -> None:
            keyboard.write(text + "\n")
            keyboard.flush()

        yield type_


def test_purge_asks_first(
    migrated_url: str, workers: Commands, answer: Callable[[str], None]
) -> None:
    for state in ("failed", "failed", "succeeded"):
        add(migrated_url, state=state)

    answer("no")
    refused = workers("purge", "--queue", "async", url=migrated_url)
    assert (refused.status, refused.output) == (1, "")
    assert "Delete 3 jobs (2 failed, 1 succeeded) of billing_* at " in refused.errors
    assert "nothing was deleted, because the answer was not yes" in refused.errors

    answer("yes")
    purged = workers("purge", "--queue", "async", url=migrated_url)
    assert (purged.status, purged.output) == (0, "purged 3 jobs\n")


def test_purge_refuses_without_a_terminal(
    migrated_url: str, workers: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = add(migrated_url, state="failed")
    with open(os.devnull) as nowhere:
        monkeypatch.setattr(sys, "stdin", nowhere)
        refused = workers("purge", id, url=migrated_url)

    assert refused.status == 1
    assert refused.errors.endswith("there is no terminal to answer on: add --yes\n")
    assert job(migrated_url, id) == ("failed",)


# --- pause and resume ----------------------------------------------------------------


async def test_a_paused_queue_starts_nothing_until_it_is_resumed(
    tables: str, workers: Commands
) -> None:
    async with working(tables) as worker:
        await until(lambda: "async" in worker.executors)
        query(tables, "UPDATE billing_queues SET polling_interval = 1")
        paused = await in_a_thread(workers, "pause", "async", "threaded", url=tables)
        await until(lambda: worker["async"].state.value == "paused")
        id = str((await worker.chancy.push(succeeds)).identifier)
        ((still_paused_at,),) = query(tables, "SELECT clock_timestamp()")
        resumed = await in_a_thread(workers, "resume", "async", url=tables)
        await until(lambda: job(tables, id) == ("succeeded",))

    assert paused.output == "paused async, threaded; jobs that run go on\n"
    assert resumed.output == "resumed async\n"
    assert job(tables, id, "started_at") > (still_paused_at,)
    assert query(tables, "SELECT name FROM billing_queues WHERE state = 'paused'") == [
        ("threaded",)
    ]


def test_a_pause_may_end_by_itself_on_the_clock_of_the_server(
    migrated_url: str, workers: Commands
) -> None:
    query(migrated_url, "INSERT INTO billing_queues (name) VALUES ('async')")

    paused = workers("pause", "async", "--for", "2h", "--json", url=migrated_url)

    ((state, left, resume_at),) = query(
        migrated_url,
        "SELECT state, extract(epoch FROM resume_at - NOW())::int, "
        """to_char(resume_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') """
        "FROM billing_queues",
    )
    assert state == "paused" and 6000 < left <= 7200
    assert paused.json == {"paused": ["async"], "resume_at": resume_at}


def test_workers_are_notified_of_each_change(
    migrated_url: str, workers: Commands
) -> None:
    query(migrated_url, "INSERT INTO billing_queues (name) VALUES ('async')")
    failed, waiting = add(migrated_url, state="failed"), add(migrated_url)
    with psycopg.connect(migrated_url, autocommit=True) as connection:
        connection.execute("LISTEN billing_events")
        for command in (
            f"retry {failed}",
            f"cancel {waiting}",
            "pause async",
            "resume async",
        ):
            assert workers(*command.split(), url=migrated_url).status == 0
        notified = [
            json.loads(each.payload)
            for each in connection.notifies(timeout=60, stop_after=4)
        ]

    assert notified == [
        {"t": "queue.pushed", "q": "async"},
        {"t": "job.cancelled", "j": waiting},
        {"t": "queue.paused", "q": "async"},
        {"t": "queue.resumed", "q": "async"},
    ]


@pytest.mark.parametrize("command", ["pause", "resume"])
def test_an_unknown_queue_is_named_and_no_other_is_changed(
    command: str, migrated_url: str, workers: Commands
) -> None:
    state = "paused" if command == "resume" else "active"
    query(
        migrated_url,
        "INSERT INTO billing_queues (name, state) VALUES ('async', %s), ('heavy', %s)",
        *(state, state),
    )

    ended = workers(command, "async", "haevy", url=migrated_url)

    assert ended.status == 1
    (line,) = ended.errors.splitlines()
    assert "there is no queue haevy of billing_* at " in line
    assert line.endswith("nothing was changed: the queues are async, heavy")
    assert query(migrated_url, "SELECT DISTINCT state FROM billing_queues") == [
        (state,)
    ]


# --- errors --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("retry", "say which jobs: by their ids, or with --state, --queue"),
        ("cancel --state failed", "invalid choice: 'failed'"),
        ("purge --state running", "invalid choice: 'running'"),
        (
            "retry 00000000-0000-7000-8000-000000000000 --queue a",
            "name jobs by their ids or by a filter, not by both",
        ),
        ("cancel 7", "'7' is not the id of a job: copy it from the command jobs"),
        ("jobs --since yesterday", "'yesterday' is not a time: write 45m, 12h or 7d"),
        ("jobs --since 99999999w", "is not a time"),
        ("jobs --limit 0", "'0' is not a whole number from 1 to 1,000,000"),
        ("pause async --for 2026-01-01", "is not a time span: write 45m, 12h or 7d"),
        ("pause async --for 3", "is not a time span: write 45m, 12h or 7d"),
    ],
)
def test_bad_usage_has_the_status_2(
    arguments: str, expected: str, workers: Commands
) -> None:
    ended = workers(*arguments.split(), url="postgresql://127.0.0.1:1/nowhere")

    assert ended.status == 2
    assert expected in " ".join(ended.errors.split())


COMMANDS = (
    *("jobs", "queues", "workers", "cron", "retry --queue a", "cancel --queue a"),
    *("purge --queue a --yes", "pause a", "resume a"),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_missing_tables_are_one_line(
    command: str, database_url: str, workers: Commands
) -> None:
    ended = workers(*command.split(), url=database_url)

    assert (ended.status, ended.output) == (1, "")
    (line,) = ended.errors.splitlines()
    assert line.endswith("run python -m app.billing.workers migrate")


@pytest.mark.parametrize("command", COMMANDS)
def test_no_secret_is_shown(command: str, migrated_url: str, workers: Commands) -> None:
    add(migrated_url)
    add(migrated_url, state="failed", kwargs=json.dumps({"password": SECRET}))
    url = f"postgresql://someone:{SECRET}@127.0.0.1:1/billing"

    refused = workers(*command.split(), url=url)
    shown = [
        workers(*command.split(), *json, url=migrated_url) for json in ([], ["--json"])
    ]

    assert refused.status == 1 and "127.0.0.1:1/billing" in refused.errors
    for ended in (refused, *shown):
        assert SECRET not in ended.output + ended.errors
        assert "Traceback" not in ended.errors


def test_a_statement_that_takes_too_long_says_what_to_do(
    migrated_url: str, workers: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = add(migrated_url, state="failed")
    monkeypatch.setitem(operations.SETTINGS, "statement_timeout", "50ms")
    with held(migrated_url, f"SELECT FROM billing_jobs WHERE id = '{id}' FOR UPDATE"):
        ended = workers("retry", id, url=migrated_url)

    assert (ended.status, ended.output) == (1, "")
    (line,) = ended.errors.splitlines()
    assert "name fewer jobs with --queue, --state or --limit" in line


def test_a_closed_pipe_ends_the_program_without_a_traceback(
    migrated_url: str, backend: Recorder
) -> None:
    """With the service of an older release."""
    for _ in range(2):
        add(migrated_url)
    command = [sys.executable, "-m", "app.billing.workers", "jobs"]
    with subprocess.Popen(
        command,
        cwd=backend.folder,
        env=environment(WORKERS_DATABASE_URL=migrated_url),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        errors = process.stderr.read()
        status = process.wait(60)

    assert (status, errors) == (1, b"")
