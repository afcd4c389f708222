"""Waiting jobs are counted correctly, at a bounded cost."""

from dataclasses import replace

import psycopg
import pytest
from chancy_runtime.jobs import depths
from chancy_runtime.jobs.depths import Depth, read_depths

from harness.databases import query

pytestmark = pytest.mark.anyio

# Jobs of all states, in three queues that are not declared.
FILL = """
INSERT INTO billing_jobs (id, queue, func, kwargs, state, attempts, max_attempts, priority,
    created_at, scheduled_at)
SELECT (lpad(to_hex(i), 12, '0') || '7' || substr(md5(i::text), 1, 19))::uuid,
    'queue' || i % 3, 'a.b', '{}',
    (ARRAY['pending', 'retrying', 'running', 'succeeded', 'failed'])[1 + i % 5],
    i % 4, 3, i % 7, NOW() - (2000 - i) * INTERVAL '1 second',
    NOW() + (i * 37 % 4001 - 2000) * INTERVAL '1 second'
FROM generate_series(1, 2000) AS i
"""
# The same numbers, computed from each single job.
PLAIN = """
SELECT queue,
    count(*) FILTER (WHERE scheduled_at <= NOW()),
    count(*) FILTER (WHERE scheduled_at > NOW()),
    EXTRACT(epoch FROM NOW() - min(greatest(created_at, scheduled_at))
        FILTER (WHERE scheduled_at <= NOW()))::float
FROM billing_jobs
WHERE state IN ('pending', 'retrying') AND attempts < max_attempts
GROUP BY queue ORDER BY queue
"""


async def read(url: str) -> tuple[list[Depth], list[Depth]]:
    """The depths that the library reads, and those of a query that reads every job."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        found = await read_depths(connection, "billing_")
        assert found is not None
        cursor = await connection.execute(PLAIN)
        return found, [Depth(*row) for row in await cursor.fetchall()]


async def test_depths_are_those_of_the_jobs_that_claims_would_find(tables: str) -> None:
    query(tables, FILL)
    found, plain = await read(tables)

    assert [each.queue for each in plain] == ["queue0", "queue1", "queue2"]
    assert [replace(each, oldest=0) for each in found] == [
        replace(each, oldest=0) for each in plain
    ]
    assert [each.oldest for each in found] == [each.oldest for each in plain]


async def test_counting_ends_at_a_number(
    tables: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    query(tables, FILL)
    monkeypatch.setattr(depths, "MOST", 50)
    found, _ = await read(tables)

    assert [(each.due, each.scheduled) for each in found] == [(50, 50)] * 3


async def test_an_empty_queue_has_a_depth_once_it_is_declared(tables: str) -> None:
    query(tables, "INSERT INTO billing_queues (name) VALUES ('default')")
    found, _ = await read(tables)

    assert found == [Depth("default", 0, 0, 0)]
