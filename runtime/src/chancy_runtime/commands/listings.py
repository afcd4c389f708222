"""The commands `jobs`, `queues`, `workers` and `cron`, which list rows."""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, LiteralString

import chancy
from chancy import QueuedJob
from chancy.plugins import cron
from psycopg import AsyncConnection
from psycopg.rows import DictRow, TupleRow

from chancy_runtime.commands.filters import (
    HELD,
    add_filters,
    add_limit,
    check_filters,
    select,
)
from chancy_runtime.commands.output import (
    Cell,
    age,
    counted,
    print_table,
    printable,
)
from chancy_runtime.commands.program import Parsers, Program, add_command, add_json
from chancy_runtime.commands.session import in_utc, session
from chancy_runtime.errors import WorkersError
from chancy_runtime.jobs.changes import EXECUTORS
from chancy_runtime.jobs.depths import MOST, Depth, read_depths
from chancy_runtime.jobs.rows import statement
from chancy_runtime.postgres.operations import transaction

_LIMIT = 50
_STATES = [state.value for state in QueuedJob.State]
# Tags that Chancy gives to every worker.
_OWN_TAGS = ("hostname=", "worker_id=", "python=", "os=", "arch=")

# The arguments of a job may be secrets, so they are not among the columns.
_JOB = f"""
j.id::text, j.state, j.queue, j.func, j.priority, j.attempts, j.max_attempts,
j.unique_key, j.taken_by AS worker, {in_utc("j.created_at")} AS pushed_at,
{in_utc("GREATEST(j.scheduled_at, j.created_at)")} AS due_at, {in_utc("j.started_at")} AS started_at,
{in_utc("j.completed_at")} AS ended_at,
CASE WHEN j.state <> 'succeeded' THEN right(j.errors -> -1 ->> 'traceback', 4000) END AS error
"""
_QUEUES: LiteralString = f"""
WITH RECURSIVE {HELD}, named (name) AS (
    SELECT name FROM {{queues}} UNION SELECT name FROM held
    ORDER BY name LIMIT %(limit)s
)
SELECT named.name, q.name IS NOT NULL AS declared, q.state,
    {in_utc("q.resume_at")} AS resume_at, q.executor, q.concurrency, q.rate_limit,
    q.rate_limit_window, q.tags,
    (SELECT count(*) FROM {{workers}} w
        WHERE named.name = ANY(w.queues) AND w.expires_at > NOW()) AS workers,
    (SELECT count(*) FROM (SELECT FROM {{jobs}} j WHERE j.queue = named.name
        AND j.state = 'running' LIMIT %(most)s) AS _) AS running,
    (SELECT count(*) FROM (SELECT FROM {{jobs}} j WHERE j.queue = named.name
        AND j.state = 'failed' LIMIT %(most)s) AS _) AS failed,
    (SELECT count(*) FROM (SELECT FROM {{jobs}} j WHERE j.queue = named.name
        AND j.state = 'succeeded' LIMIT %(most)s) AS _) AS succeeded
FROM named LEFT JOIN {{queues}} q USING (name)
ORDER BY named.name
"""
_WORKERS: LiteralString = f"""
WITH RECURSIVE {HELD}, running AS (
    SELECT taken_by, count(*) AS jobs FROM held CROSS JOIN LATERAL (
        SELECT taken_by FROM {{jobs}} WHERE queue = held.name AND state = 'running'
        LIMIT %(most)s
    ) AS _ GROUP BY taken_by
)
SELECT COALESCE(w.worker_id, r.taken_by) AS worker, COALESCE(w.expires_at > NOW(), false)
    AS alive, l.worker_id IS NOT NULL AS leads, {in_utc("w.last_seen")} AS last_seen,
    extract(epoch FROM NOW() - w.last_seen)::bigint AS seconds_since_seen,
    COALESCE(r.jobs, 0) AS running, w.queues, w.tags
FROM {{workers}} w FULL JOIN running r ON r.taken_by = w.worker_id
LEFT JOIN {{leader}} l ON l.worker_id = w.worker_id AND l.expires_at > NOW()
ORDER BY worker LIMIT %(limit)s
"""
_CRON: LiteralString = f"""
SELECT unique_key, cron, timezone, job ->> 'f' AS func, job ->> 'q' AS queue,
    {in_utc("last_run")} AS last_run, {in_utc("next_run")} AS next_run,
    next_run < NOW() AS due
FROM {{cron}} ORDER BY unique_key LIMIT %(limit)s
"""


def add_commands(parsers: Parsers) -> None:
    """Adds `jobs`, `queues`, `workers` and `cron`."""
    parser = add_command(
        parsers,
        "jobs",
        run_jobs,
        "show jobs, the newest first; with ids also their tracebacks",
    )
    add_filters(parser, states=_STATES, usual="all", limit=_LIMIT)
    add_json(parser)
    for name, run, text in (
        ("queues", run_queues, "show the queues, and how many jobs they hold"),
        ("workers", run_workers, "show the workers, and how many jobs they run"),
        ("cron", run_cron, "show the schedules, and when they run"),
    ):
        parser = add_command(parsers, name, run, text)
        add_limit(parser, _LIMIT)
        add_json(parser)


def run_jobs(program: Program, arguments: argparse.Namespace) -> int:
    check_filters(arguments, needed=False)
    app = program.create_chancy()
    columns = _JOB + ", j.errors" if arguments.ids else _JOB
    jobs, has_more = asyncio.run(_select_jobs(program, app, arguments, columns))
    for job in jobs:
        job["error"] = _last_line(job["error"])
    _show(
        arguments, "jobs", jobs, has_more, lambda job: _job_cells(job, program.package)
    )
    if arguments.ids and not arguments.json:
        for job in jobs:
            _print_errors(job)
    missing = {*map(str, arguments.ids)} - {job["id"] for job in jobs}
    for id in sorted(missing):
        print(f"{program.name}: there is no job {id}", file=sys.stderr)
    return 1 if missing else 0


async def _select_jobs(
    program: Program,
    app: chancy.Chancy,
    arguments: argparse.Namespace,
    columns: LiteralString,
) -> tuple[list[DictRow], bool]:
    async with session(program, app) as connection:
        return await select(connection, app, arguments, columns)


def _job_cells(job: DictRow, package: str | None) -> dict[str, Cell]:
    state = job["state"]
    return {
        "ID": job["id"],
        "STATE": state,
        "QUEUE": job["queue"],
        "FUNCTION": job["func"].removeprefix(f"{package}."),
        "ATTEMPTS": f"{job['attempts']} of {job['max_attempts']}",
        "PUSHED": job["pushed_at"],
        "DUE": job["due_at"] if state in ("pending", "retrying") else "",
        "STARTED": job["started_at"] if state == "running" else "",
        "ENDED": job["ended_at"],
        "ERROR": job["error"],
    }


def _last_line(error: str | None) -> str | None:
    """Returns the line of a traceback that names the exception."""
    lines = [line for line in (error or "").splitlines() if line.strip()]
    frames = [i for i, line in enumerate(lines) if line.startswith('  File "')]
    after = [
        line for line in lines[frames[-1] + 1 if frames else 0 :] if line[:1] != " "
    ]
    return next(iter(after or lines[-1:]), None)


def _print_errors(job: DictRow) -> None:
    for error in job["errors"] if isinstance(job["errors"], list) else []:
        if isinstance(error, dict):
            print(f"\n{job['id']}:")
            for line in str(error.get("traceback")).splitlines():
                print(printable(line))


def run_queues(program: Program, arguments: argparse.Namespace) -> int:
    app = program.create_chancy()
    rows, has_more = asyncio.run(_select_queues(program, app, arguments))
    for row in rows:
        row["executor"] = EXECUTORS.get(row["executor"], row["executor"])
    _show(arguments, "queues", rows, has_more, _queue_cells, counted_up_to=MOST)
    if any(row["due"] is None for row in rows):
        print(
            "due and scheduled jobs are not counted, because the tables lack the library's "
            f"indexes: run {program.name} migrate",
            file=sys.stderr,
        )
    return 0


async def _select_queues(
    program: Program, app: chancy.Chancy, arguments: argparse.Namespace
) -> tuple[list[DictRow], bool]:
    """Returns the queues with the numbers of their jobs, and whether there are more."""
    async with session(program, app) as connection:
        rows, has_more = await _rows(connection, app, arguments, _QUEUES)
        async with transaction(connection):
            found = await read_depths(
                connection, app.prefix, most_queues=arguments.limit
            )
    depths = {each.queue: each for each in found or ()}
    for row in rows:
        if found is None:
            row |= {"due": None, "scheduled": None, "oldest_due_seconds": None}
            continue
        depth = depths.get(row["name"], Depth(row["name"], 0, 0, 0))
        row |= {
            "due": depth.due,
            "scheduled": depth.scheduled,
            "oldest_due_seconds": int(depth.oldest) if depth.due else None,
        }
    return rows, has_more


def _queue_cells(queue: DictRow) -> dict[str, Cell]:
    state = queue["state"] if queue["declared"] else "not declared"
    if queue["resume_at"]:
        state += f" until {queue['resume_at']}"
    rate = queue["rate_limit"]
    counts: dict[str, Cell] = {
        name.upper(): f"{MOST}+" if queue[name] == MOST else queue[name]
        for name in ("due", "scheduled", "running", "failed", "succeeded")
    }
    return {
        "QUEUE": queue["name"],
        "STATE": state,
        "WORKERS": queue["workers"],
        **counts,
        "OLDEST": age(queue["oldest_due_seconds"]),
        "EXECUTOR": queue["executor"],
        "CONCURRENCY": queue["concurrency"],
        "RATE": f"{rate} in {queue['rate_limit_window']} s" if rate else "",
        "TAGS": ", ".join(sorted(set(queue["tags"] or []) - {".*"})),
    }


def run_workers(program: Program, arguments: argparse.Namespace) -> int:
    app = program.create_chancy()
    rows, has_more = asyncio.run(_list(program, app, arguments, _WORKERS))
    _show(arguments, "workers", rows, has_more, _worker_cells)
    return 0


def _worker_cells(worker: DictRow) -> dict[str, Cell]:
    tags = sorted(worker["tags"] or [])
    hosts = [
        tag.removeprefix("hostname=") for tag in tags if tag.startswith("hostname=")
    ]
    given = [tag for tag in tags if tag != "*" and not tag.startswith(_OWN_TAGS)]
    seen = worker["seconds_since_seen"]
    return {
        "WORKER": worker["worker"],
        "STATE": "alive" if worker["alive"] else "lost",
        "LEADS": "yes" if worker["leads"] else "",
        "SEEN": "" if seen is None else f"{age(seen)} ago",
        "RUNNING": worker["running"],
        "HOST": ", ".join(hosts),
        "TAGS": ", ".join(given),
        "QUEUES": ", ".join(sorted(worker["queues"] or [])),
    }


def run_cron(program: Program, arguments: argparse.Namespace) -> int:
    app = program.create_chancy()
    if cron.Cron.get_identifier() not in app.plugins:
        raise WorkersError(
            "this service has no schedules: its Chancy is built without the plugin Cron"
        )
    rows, has_more = asyncio.run(_list(program, app, arguments, _CRON))
    _show(
        arguments,
        "schedules",
        rows,
        has_more,
        lambda schedule: _schedule_cells(schedule, program.package),
    )
    return 0


def _schedule_cells(schedule: DictRow, package: str | None) -> dict[str, Cell]:
    return {
        "SCHEDULE": schedule["unique_key"],
        "CRON": schedule["cron"],
        "TIMEZONE": schedule["timezone"],
        "QUEUE": schedule["queue"],
        "LAST RUN": schedule["last_run"] or "never",
        "NEXT RUN": (schedule["next_run"] or "never")
        + (" (due)" if schedule["due"] else ""),
        "FUNCTION": (schedule["func"] or "").removeprefix(f"{package}."),
    }


async def _list(
    program: Program,
    app: chancy.Chancy,
    arguments: argparse.Namespace,
    text: LiteralString,
) -> tuple[list[DictRow], bool]:
    """Returns the rows of a listing up to the limit, and whether there are more."""
    async with session(program, app) as connection:
        return await _rows(connection, app, arguments, text)


async def _rows(
    connection: AsyncConnection[TupleRow],
    app: chancy.Chancy,
    arguments: argparse.Namespace,
    text: LiteralString,
) -> tuple[list[DictRow], bool]:
    limit: int = arguments.limit
    async with transaction(connection) as cursor:
        await cursor.execute(
            statement(text, app.prefix), {"limit": limit + 1, "most": MOST}
        )
        rows = await cursor.fetchall()
    return rows[:limit], len(rows) > limit


def _show(
    arguments: argparse.Namespace,
    name: str,
    rows: Sequence[DictRow],
    has_more: bool,
    cells: Callable[[DictRow], Mapping[str, Cell]],
    **others: Any,
) -> None:
    """Prints rows as a table or as JSON.

    Args:
        name: The plural noun for the rows.
        cells: Returns the cells of a row in the table.
        others: More values for the JSON object.
    """
    if arguments.json:
        print(json.dumps({name: rows, "more": has_more, **others}))
    elif rows:
        print_table([cells(row) for row in rows])
        if has_more:
            shown = counted(len(rows), name.removesuffix("s"))
            print(f"there are more than {shown}: raise --limit to see them")
    else:
        print(f"no {name}")
