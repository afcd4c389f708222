"""A process that only pushes: a small pool, and nothing that belongs to workers."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import billing_service
import psycopg
import pytest
from chancy_runtime import CronJob, Worker, WorkersError
from chancy_runtime.modes import Process, become, this_process
from chancy_runtime.web import find_problems

from harness.databases import query, url_of
from harness.recorder import plain_chancy

pytestmark = pytest.mark.anyio


@pytest.fixture
def api(tables: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The database of an API that only pushes."""
    before = this_process()
    become(Process())
    monkeypatch.setenv("WORKERS_MODE", "push")
    monkeypatch.setattr(
        billing_service,
        "CRON_JOBS",
        [CronJob(job=billing_service.succeeds, cron="* * * * *")],
    )
    yield tables
    become(before)


async def test_it_pushes_and_does_nothing_else(api: str) -> None:
    threads = set(threading.enumerate())

    async with billing_service.initialize_workers():
        chancy = billing_service.get_chancy()
        pushed = await chancy.push(billing_service.succeeds.job.with_kwargs(text="x"))
        found = await chancy.get_job(pushed)
        listening = query(
            api,
            "SELECT query FROM pg_stat_activity WHERE query ILIKE '%listen%' "
            "AND datname = current_database() AND pid <> pg_backend_pid()",
        )
        new = {thread.name for thread in set(threading.enumerate()) - threads}

        assert chancy.workers == [] and len(chancy.elsewhere) == 1
        assert found is not None and found.state.value == "pending"
        assert listening == []
        assert "workers-watchdog" not in new
        assert await find_problems(billing_service.get_chancy) == []
    for table in ("queues", "cron", "workers", "leader"):
        assert query(api, f"SELECT * FROM billing_{table}") == [], table
    deployments = "SELECT * FROM billing_schema_version WHERE version_of = 'deployment'"
    assert query(api, deployments) == []


async def test_its_pool_grows_to_four_connections(api: str) -> None:
    async with billing_service.initialize_workers():
        chancy = billing_service.get_chancy()
        assert (chancy.pool.min_size, chancy.pool.max_size) == (1, 4)
        job = billing_service.succeeds.job.with_kwargs(text="x")
        await asyncio.gather(*(chancy.push(job) for _ in range(200)))
        assert chancy.pool.get_stats()["pool_size"] <= 4
    assert query(api, "SELECT count(*) FROM billing_jobs") == [(200,)]


async def test_a_smaller_pool_stays_small(api: str) -> None:
    chancy = plain_chancy(api, min_connection_pool_size=1, max_connection_pool_size=2)

    assert chancy.max_connection_pool_size == 2


async def test_it_is_ready_while_the_database_takes_pushes(api: str) -> None:
    async with billing_service.initialize_workers():
        query(api, "ALTER TABLE billing_jobs RENAME TO hidden_jobs")
        assert await find_problems(billing_service.get_chancy) == [
            "the database does not take writes"
        ]
        query(api, "ALTER TABLE hidden_jobs RENAME TO billing_jobs")
        assert await find_problems(billing_service.get_chancy) == []


async def test_a_role_that_may_only_push_is_enough(
    api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = f"only_pushes_{uuid4().hex}"
    query(api, f"CREATE ROLE {role} LOGIN BYPASSRLS")
    try:
        query(api, f"GRANT INSERT, SELECT, UPDATE ON billing_jobs TO {role}")
        query(api, f"GRANT SELECT ON billing_schema_version TO {role}")
        name = str(psycopg.conninfo.conninfo_to_dict(api)["dbname"])
        monkeypatch.setenv("WORKERS_DATABASE_URL", url_of(api, name, role))
        async with billing_service.initialize_workers():
            chancy = billing_service.get_chancy()
            await chancy.push(billing_service.succeeds.job.with_kwargs(text="x"))
            assert await find_problems(billing_service.get_chancy) == []
    finally:
        query(api, f"DROP OWNED BY {role}")
        query(api, f"DROP ROLE {role}")


async def test_missing_tables_still_end_the_start(
    api: str,
) -> None:
    query(api, "DROP TABLE billing_jobs")
    query(api, "DELETE FROM billing_schema_version WHERE version_of = 'chancy'")

    with pytest.raises(WorkersError, match="run python -m app.billing.workers migrate"):
        async with billing_service.initialize_workers():
            pass


@pytest.mark.parametrize("mode", ["off", "api", None])
async def test_a_service_chooses_run_or_push(mode: Any) -> None:
    with pytest.raises(WorkersError) as error:
        plain_chancy("postgresql://u@127.0.0.1:1/d", mode=mode)

    assert str(error.value) == (
        f"mode is {mode!r}, but must be run or push: correct it in app.billing.workers"
    )


async def test_a_worker_is_for_the_api_or_the_process_of_the_workers() -> None:
    chancy = plain_chancy("postgresql://u@127.0.0.1:1/d")

    with pytest.raises(WorkersError, match="process of a Worker is 'web', but must"):
        Worker(chancy, process="web")
