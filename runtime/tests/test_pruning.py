"""The Pruner goes on after a full batch, so that it keeps up with any number of jobs."""

import asyncio

import billing_service
import psycopg
import pytest
from chancy_runtime import Chancy, Pruner
from chancy_runtime.testing import Service

pytestmark = pytest.mark.anyio


async def test_more_old_jobs_than_one_batch_go_in_one_poll(
    tables: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(tables, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO billing_jobs (id, queue, func, state, created_at) SELECT "
            "gen_random_uuid(), 'default', 'a.b', 'succeeded', NOW() - INTERVAL '2 days' "
            "FROM generate_series(1, 95)"
        )
    # The next poll is a minute away.
    create = billing_service.create_chancy

    def with_small_batches() -> Chancy:
        chancy = create()
        chancy.plugins["chancy.pruner"] = Pruner(maximum_to_prune=10)
        return chancy

    monkeypatch.setattr(billing_service, "create_chancy", with_small_batches)
    async with service.running():
        async with asyncio.timeout(30):
            while True:
                with psycopg.connect(tables) as connection:
                    row = connection.execute(
                        "SELECT count(*) FROM billing_jobs"
                    ).fetchone()
                if row == (0,):
                    break
                await asyncio.sleep(0.1)
