"""A claim costs the same, whatever rows precede its jobs; counted in buffers, not in time."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import psycopg
import pytest
from chancy_runtime.jobs import claims, depths
from chancy_runtime.jobs.rows import statement
from psycopg import Connection
from psycopg.rows import TupleRow

from harness.databases import database
from harness.recorder import make_tables

pytestmark = pytest.mark.xdist_group("depth")

UP_TO = 10
TYPES = {
    **{"queue": "text", "up_to": "int", "worker": "text", "now": "timestamptz"},
    "sorted": "int",
}
# 10 jobs cost 150 buffers in an empty table. A claim that reads 100,000 rows costs 2,000.
MOST = 400
# Jobs that fell due after their push are sorted, at most 1,000 of them.
MOST_WITH_A_SORT = MOST + claims._SORTED + 100
# Like Chancy's ids, these are in the order of the pushes.
FILL = """
INSERT INTO billing_jobs (id, func, kwargs, max_attempts, queue, state, attempts,
    priority, created_at, scheduled_at)
SELECT (lpad(to_hex({first} + i), 12, '0') || '7' || substr(md5(i::text), 1, 19))::uuid,
    'a.b', '{{"to": "someone@example.com"}}', 3, {columns}
FROM generate_series(1, {rows}) AS i
"""
LONG_AGO = "'2026-01-01'::timestamptz + i * INTERVAL '1 ms'"
LATER = "NOW() + random() * INTERVAL '30 days'"
EARLIER = "NOW() - random() * INTERVAL '1 day'"


@dataclass(frozen=True)
class Shape:
    """The rows that a claim has to pass.

    Args:
        columns: queue, state, attempts, priority, created_at and scheduled_at of a row.
        due: The same columns of jobs behind these rows that a claim should find.
    """

    columns: str
    due: str = ""
    most: int = MOST


SHAPES = {
    "waiting": Shape(f"'waiting', 'pending', 0, 0, {LONG_AGO}, {LONG_AGO}"),
    # Jobs that are scheduled for later or retried later, in front of a few due jobs.
    "later": Shape(
        f"'later', CASE i % 2 WHEN 0 THEN 'pending' ELSE 'retrying' END, 0, 0, {LONG_AGO}, "
        f"{LATER}",
        f"'later', 'pending', 0, 0, {LONG_AGO}, "
        f"CASE i % 2 WHEN 0 THEN {LONG_AGO} ELSE {EARLIER} END",
    ),
    "overdue": Shape(
        f"'overdue', 'retrying', 1, 0, {LONG_AGO}, {EARLIER}", most=MOST_WITH_A_SORT
    ),
    # Each priority of jobs that were scheduled for later costs two looks into the index.
    "spread": Shape(
        f"concat('spread', nullif(i % 20, 0)), 'pending', 0, i / 20 % 20, {LONG_AGO}, "
        f"CASE i % 3 WHEN 0 THEN {LONG_AGO} ELSE {LATER} END",
        f"'spread', 'pending', 0, i % 20, {LONG_AGO}, {EARLIER}",
        most=MOST + 20 * 10,
    ),
    "finished": Shape(
        "'finished', CASE i % 2 WHEN 0 THEN 'succeeded' ELSE 'pending' END, 3, 0, "
        f"{LONG_AGO}, {LONG_AGO}",
        f"'finished', 'pending', 0, 0, {LONG_AGO}, {LONG_AGO}",
    ),
}
# How a claim was planned, and when the statistics were collected.
PLANS = (
    "generic, from before the fill",
    *("generic, analysed when empty", "custom, analysed when empty"),
    *("generic, analysed when full", "custom, analysed when full"),
)


@pytest.fixture(
    scope="module",
    params=[100_000, pytest.param(1_000_000, marks=pytest.mark.slow)],
)
def depth(request: pytest.FixtureRequest) -> int:
    """The number of rows that a claim has to pass."""
    rows: int = request.param
    return rows


@pytest.fixture(scope="module")
def url(server_url: str, depth: int) -> Iterator[str]:
    """A database with the tables, without autovacuum and its statistics."""
    with database(server_url) as url:
        make_tables(url)
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute(
                "ALTER TABLE billing_jobs SET (autovacuum_enabled = off)"
            )
            connection.execute("VACUUM ANALYZE billing_jobs")
        yield url


@pytest.fixture(scope="module")
def planned_when_empty(url: str, depth: int) -> Iterator[Connection[TupleRow]]:
    """A connection whose claim was planned before the table was filled."""
    with psycopg.connect(url, autocommit=True) as connection:
        prepare(connection, claims._TAKE_BY_INDEX)
        with as_claims_are_planned(connection):
            assert buffers(connection, "waiting")[0] == 0
        for number, shape in enumerate(SHAPES.values()):
            for rows, columns in ((depth, shape.columns), (200, shape.due)):
                if columns:
                    first = (number * 2 + (rows == 200)) * 2 * depth
                    connection.execute(
                        FILL.format(first=first, columns=columns, rows=rows)
                    )
        yield connection


@pytest.fixture(scope="module", params=PLANS)
def plan(
    request: pytest.FixtureRequest, planned_when_empty: Connection[TupleRow]
) -> str:
    """How claims are planned on the connection."""
    if request.param != PLANS[0]:
        if request.param.endswith("full"):
            planned_when_empty.execute("ANALYZE billing_jobs")
        planned_when_empty.execute("DEALLOCATE claim")
        prepare(planned_when_empty, claims._TAKE_BY_INDEX)
    return str(request.param)


def prepare(connection: Connection[TupleRow], text: Any) -> None:
    """Prepares a statement like psycopg."""
    names = [*TYPES]
    numbered = re.sub(
        r"%\((\w+)\)s",
        lambda found: f"${names.index(found[1]) + 1}",
        statement(text, "billing_").decode(),
    )
    connection.execute(f"PREPARE claim ({', '.join(TYPES.values())}) AS {numbered}")


@contextmanager
def as_claims_are_planned(connection: Connection[TupleRow]) -> Iterator[None]:
    with connection.transaction(force_rollback=True):
        connection.execute(claims.PLAN)
        yield


def buffers(
    connection: Connection[TupleRow], queue: str, up_to: int = UP_TO
) -> tuple[int, int]:
    """Claims jobs; returns their number, and the buffers that the claim touched."""
    claim = f"claim('{queue}', {up_to}, 'worker', NULL, {claims._SORTED})"
    return explained(connection, f"EXECUTE {claim}")


def explained(connection: Connection[TupleRow], text: str) -> tuple[int, int]:
    """Runs a statement; returns its number of rows, and the buffers that it touched."""
    explain: Any = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {text}"
    row = connection.execute(explain).fetchone()
    assert row
    found = row[0][0]["Plan"]
    return int(found["Actual Rows"]), sum(
        found[f"Shared {kind} Blocks"] for kind in ("Hit", "Read")
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_a_claim_costs_the_same_whatever_rows_it_has_to_pass(
    shape: str, plan: str, planned_when_empty: Connection[TupleRow]
) -> None:
    connection = planned_when_empty
    with as_claims_are_planned(connection):
        if plan.startswith("custom"):
            connection.execute("SET LOCAL plan_cache_mode = force_custom_plan")
        taken, touched = buffers(connection, shape)

    assert taken == UP_TO
    assert touched <= SHAPES[shape].most


def test_giving_jobs_back_reads_those_that_run(
    plan: str, planned_when_empty: Connection[TupleRow]
) -> None:
    """PostgreSQL 18 would find them without the queues; older versions read a whole index."""
    connection = planned_when_empty
    text = statement(claims._GIVE_BACK, "billing_").decode()
    give_back = text.replace("%(queues)s", "'{waiting,later,spread}'")
    give_back = give_back.replace("%(worker)s", "'worker'")
    give_back = give_back.replace("%(running)s", "'{}'").replace("%(age)s", "NULL")
    with as_claims_are_planned(connection):
        buffers(connection, "waiting")
        # Not planned like a claim: this statement runs in a heartbeat and at the stop.
        connection.execute("RESET ALL")
        given, touched = explained(connection, give_back)

    assert given == UP_TO
    assert touched <= MOST


@pytest.mark.parametrize(("shape", "looks"), [("waiting", 1), ("overdue", 2)])
def test_a_dead_row_behind_an_open_transaction_costs_a_bounded_part_of_a_claim(
    shape: str, looks: int, url: str, planned_when_empty: Connection[TupleRow]
) -> None:
    connection = planned_when_empty
    most = SHAPES[shape].most
    with psycopg.connect(url) as other:
        other.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        other.execute("SELECT count(*) FROM billing_workers")
        dead = connection.execute(
            "DELETE FROM billing_jobs WHERE queue = %s AND scheduled_at < "
            "(SELECT percentile_disc(0.9) WITHIN GROUP (ORDER BY scheduled_at) "
            "FROM billing_jobs WHERE queue = %s)",
            [shape, shape],
        ).rowcount
        with as_claims_are_planned(connection):
            taken, touched = buffers(connection, shape)
        assert taken == UP_TO
        assert touched <= most + 1.1 * looks * dead
    # The first claim after the end of the transaction marks the dead rows.
    for _ in range(2):
        with as_claims_are_planned(connection):
            taken, touched = buffers(connection, shape)

    assert taken == UP_TO
    assert touched <= most + looks * dead / 50


def test_reading_depths_touches_a_bounded_part_of_the_waiting_jobs(
    plan: str, planned_when_empty: Connection[TupleRow]
) -> None:
    connection = planned_when_empty
    text = statement(depths._DEPTHS, "billing_").decode()
    values = {
        "most": 1000,
        "most_priorities": depths._MOST_PRIORITIES,
        "most_queues": depths._MOST_QUEUES,
    }
    for name, value in values.items():
        text = text.replace(f"%({name})s", str(value))
    with as_claims_are_planned(connection):
        _, touched = explained(connection, text)
        found = connection.execute(cast(Any, text)).fetchall()

    queues, counted = len(found), sum(due + scheduled for _, due, scheduled, _ in found)
    assert queues == len(SHAPES) + 19
    assert max(due for _, due, _, _ in found) == values["most"]
    # A row for each job that is counted, since nothing has marked the pages as visible;
    # and, for each of 20 priorities, a look for the next one, two counts and a first job.
    assert touched - counted <= queues * 2 * 20 * 4 * 5
