"""A server that is slow, or waits for a lock, does not count as gone."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import billing_service
import psycopg
import pytest
from billing_service import get_chancy, succeeds
from chancy_runtime import Chancy, Queue, QueuedJob, Settings, job
from chancy_runtime.postgres import connections
from chancy_runtime.testing import Service
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from harness.databases import connections_to, query

pytestmark = pytest.mark.anyio


@job()
async def swallows(*, text: str) -> None:
    assert len(text) > 1000


class Link:
    """A TCP link to the server with a limited rate, in bytes a second each way."""

    def __init__(self, folder: str, port: str, rate: int) -> None:
        self._target = f"{folder}/.s.PGSQL.{port}"
        self._rate = rate

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        part = self._rate // 20
        with contextlib.suppress(OSError):
            while data := await reader.read(part):
                writer.write(data)
                await writer.drain()
                if len(data) > part // 4:
                    await asyncio.sleep(len(data) / self._rate)
        writer.close()

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        try:
            server = await asyncio.open_unix_connection(self._target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(
            self._forward(reader, server[1]), self._forward(server[0], writer)
        )

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[int]:
        """Yields the link's port."""
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        async with server:
            yield server.sockets[0].getsockname()[1]


async def all_succeed(chancy: Chancy, url: str, count: int) -> None:
    while True:
        with psycopg.connect(url) as connection:
            rows = connection.execute(
                "SELECT state, count(*) FROM billing_jobs GROUP BY state"
            ).fetchall()
        if dict(rows) == {"succeeded": count}:
            return
        await asyncio.sleep(0.5)


async def until_announced(url: str) -> None:
    """Until the worker has announced itself again."""
    ((last,),) = query(url, "SELECT last_seen FROM billing_workers")
    while query(url, "SELECT last_seen FROM billing_workers") == [(last,)]:
        await asyncio.sleep(0.1)


async def test_large_jobs_come_over_a_slow_link(
    tables: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim of all jobs takes longer than the server may be silent."""
    monkeypatch.setattr(connections, "ANSWER_TIMEOUT", 3)
    target = conninfo_to_dict(tables)
    link = Link(str(target["host"]), str(target.get("port") or 5432), 1_000_000)
    jobs, size = 60, 100_000
    with psycopg.connect(tables, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO billing_jobs (id, queue, func, kwargs) SELECT "
            "gen_random_uuid(), 'default', %s, "
            "jsonb_build_object('text', repeat(md5(n::text), %s)) "
            "FROM generate_series(1, %s) n",
            ["test_slow_answers.swallows", size // 32, jobs],
        )
    async with link.open() as port:
        slow = make_conninfo(tables, host="127.0.0.1", port=port)
        monkeypatch.setenv("WORKERS_DATABASE_URL", slow)
        async with service.running() as chancy, asyncio.timeout(60):
            await all_succeed(chancy, tables, jobs)
            with psycopg.connect(tables) as connection:
                attempts = connection.execute(
                    "SELECT DISTINCT attempts FROM billing_jobs"
                ).fetchall()
            assert attempts == [(1,)]


async def test_a_lock_on_the_jobs_opens_no_further_connections(
    tables: str, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock of an index build; the server ends each statement that waits for it."""
    monkeypatch.setattr(connections, "ANSWER_TIMEOUT", 2)
    monkeypatch.setattr(billing_service, "SETTINGS", Settings(heartbeat_timeout=10))
    queues = [
        Queue(f"queue_{n}", executor=Chancy.Executor.Async, polling_interval=1)
        for n in range(4)
    ]
    monkeypatch.setattr(billing_service, "QUEUES", [*billing_service.QUEUES, *queues])
    async with asyncio.timeout(120), service.running() as chancy:
        # The pool and LISTEN, as the docs say.
        most = chancy.max_connection_pool_size + 1
        with psycopg.connect(tables) as connection:
            # In a thread, because it waits for transactions of the service, which run on this loop.
            lock = "LOCK TABLE billing_jobs IN SHARE MODE"
            await asyncio.to_thread(connection.execute, lock)
            until = time.monotonic() + 10
            while time.monotonic() < until:
                # This connection and that of the query do not belong to the service.
                assert connections_to(tables) - 1 <= most
                await asyncio.sleep(0.2)
            # Nor does it count as a loss of the workers, whose jobs would run twice.
            assert "waited for a lock" in chancy.monitor.failing["queue_default"]
            await until_announced(tables)
        reference = await get_chancy().push(succeeds.job.with_kwargs(text="hello"))
        done = await get_chancy().wait_for_job(reference, timeout=60)
        assert done is not None
        assert (done.state, done.attempts) == (QueuedJob.State.SUCCEEDED, 1)
        await service.until_ready()
