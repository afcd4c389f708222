"""Secrets stay where the team put them."""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import sentry_sdk
from chancy.plugin import Plugin
from chancy_runtime import (
    Chancy,
    Cron,
    CronJob,
    Leadership,
    OpenTelemetryPlugin,
    PrometheusPlugin,
    Pruner,
    Queue,
    QueuedJob,
    Recovery,
    SentryPlugin,
    SentryTraces,
    Settings,
    Worker,
    check_database,
    declare_queues,
    job,
    schedule_cron_jobs,
)
from chancy_runtime.web import health_router, metrics_router
from fastapi import FastAPI
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from harness.databases import database, query, tables
from harness.recorder import make_tables, plain_chancy
from harness.servers import Cluster, cluster

HERE = __name__
# In the URL, in the arguments of a job that works and of one that fails, and in the text of
# an exception.
PASSWORD, ARGUMENT, FAILED_ARGUMENT, EXCEPTION = (
    "planted-in-the-dsn",
    "planted-in-arguments",
    "planted-in-failing-arguments",
    "planted-in-an-exception",
)
SECRETS = {PASSWORD, ARGUMENT, FAILED_ARGUMENT, EXCEPTION}
ASYNC, THREAD, PROCESS = (
    Chancy.Executor.Async,
    Chancy.Executor.Threaded,
    Chancy.Executor.Process,
)
QUEUES = [
    Queue("default", executor=ASYNC, eager_polling=True),
    Queue("thread", executor=THREAD, eager_polling=True),
    Queue("process", executor=PROCESS, concurrency=1, eager_polling=True),
]


@job()
async def works(*, secret: str) -> str:
    return secret


@job()
async def fails(*, secret: str) -> None:
    raise RuntimeError(EXCEPTION)


@job(queue="thread")
def fails_in_thread(*, secret: str) -> None:
    raise RuntimeError(EXCEPTION)


@job(queue="process")
def fails_in_process(*, secret: str) -> None:
    raise RuntimeError(EXCEPTION)


class BadHook(Plugin):
    """A plugin of the team with a bug."""

    @staticmethod
    def get_identifier() -> str:
        return "bad_hook"

    async def on_job_completed(self, *, job: QueuedJob, **_: Any) -> QueuedJob:
        raise ZeroDivisionError


FAILING: list[Any] = [fails, fails_in_thread, fails_in_process]


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    with cluster() as running:
        yield running


@pytest.fixture
def url(server: Cluster) -> Iterator[str]:
    with database(server.url()) as url:
        make_tables(url)
        yield url.replace("postgres@", f"postgres:{PASSWORD}@")


@asynccontextmanager
async def working(url: str) -> AsyncIterator[Chancy]:
    app = plain_chancy(
        url,
        package=HERE,
        plugins=[
            Leadership(),
            Pruner(),
            Recovery(),
            Cron(),
            SentryPlugin(service="billing"),
            SentryTraces(service="billing"),
            OpenTelemetryPlugin(),
            PrometheusPlugin(service="billing"),
            BadHook(),
        ],
        settings=Settings(poll_interval=1, only_registered=True),
        log=logging.getLogger(HERE),
    )
    await check_database(app)
    async with app:
        await declare_queues(app, QUEUES)
        cron_job = CronJob(job=works.job.with_kwargs(secret=ARGUMENT), cron="0 0 1 1 *")
        await schedule_cron_jobs(app, [cron_job])
        async with Worker(app, register_signal_handlers=False):
            yield app


async def bad_rows(url: str) -> None:
    """Rows that fail before a function is called, with a secret in each column of JSON."""
    kwargs = json.dumps({"secret": ARGUMENT})
    text = json.dumps(ARGUMENT)
    for func, columns in (
        ("os.system", {}),
        (f"{HERE}.missing", {}),
        (f"{HERE}.works", {"kwargs": text}),
        (f"{HERE}.works", {"meta": text}),
        (f"{HERE}.works", {"errors": text}),
    ):
        values = {"kwargs": kwargs, **columns}
        query(
            url,
            f"INSERT INTO billing_jobs (id, queue, func, max_attempts, {', '.join(values)}) "
            f"VALUES (gen_random_uuid(), 'default', %s, 1{', %s' * len(values)})",
            *(func, *values.values()),
        )


async def run_everything(url: str, server: Cluster) -> list[str]:
    """Runs jobs of each kind, then an outage; returns the answers of the routes."""
    answers = []
    async with working(url) as app:
        web = FastAPI()
        web.include_router(health_router(lambda: app))
        web.include_router(metrics_router(lambda: app))
        transport = httpx.ASGITransport(web)
        async with httpx.AsyncClient(
            transport=transport, base_url="http://a"
        ) as client:
            await bad_rows(url)
            pushed = [await app.push(works.job.with_kwargs(secret=ARGUMENT))]
            for each in FAILING:
                job = each.job.with_kwargs(secret=FAILED_ARGUMENT)
                pushed.append(await app.push(job.with_max_attempts(1)))
            for reference in pushed:
                assert await app.wait_for_job(reference, timeout=60)
            async with asyncio.timeout(60):
                while query(url, "SELECT FROM billing_jobs WHERE completed_at IS NULL"):
                    await asyncio.sleep(0.05)
            answers.append((await client.get("/health/ready")).text)
            answers.append((await client.get("/metrics")).text)
            assert "chancy_jobs_ended_total{" in answers[-1]
            await asyncio.to_thread(server.stop)
            async with asyncio.timeout(60):
                while not app.monitor.database_is_lost:
                    await asyncio.sleep(0.05)
            answers.append((await client.get("/health/ready")).text)
            await asyncio.to_thread(server.start)
            async with asyncio.timeout(60):
                while (answer := await client.get("/health/ready")).status_code != 200:
                    await asyncio.sleep(0.05)
            answers += [answer.text, (await client.get("/health/live")).text]
    return answers


def found_in(text: str) -> set[str]:
    return {secret for secret in SECRETS if secret in text}


def frames_of(event: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for value in event.get("exception", {}).get("values", []):
        yield from value.get("stacktrace", {}).get("frames", [])


def test_secrets_are_where_the_team_put_them_and_nowhere_else(
    url: str,
    server: Cluster,
    spans: InMemorySpanExporter,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    events: list[Any] = []

    def keep(event: Any, hint: Any) -> None:
        events.append(event)

    logging.getLogger("asyncio").setLevel(logging.DEBUG)
    with sentry_sdk.isolation_scope(), caplog.at_level(logging.DEBUG):
        sentry_sdk.init(
            "http://key@127.0.0.1:9/1",
            before_send=keep,
            before_send_transaction=keep,
            traces_sample_rate=1.0,
        )
        try:
            answers = asyncio.run(run_everything(url, server))
        finally:
            sentry_sdk.init(dsn="")
    printed = capfd.readouterr()

    # Only the text of an exception may be there: it is the job's own message.
    for text in (*caplog.messages, caplog.text, printed.out, printed.err):
        assert found_in(text) <= {EXCEPTION}
    assert found_in("".join(answers)) == set()
    assert EXCEPTION in caplog.text
    ended = [span.to_json() for span in spans.get_finished_spans()]
    assert len(ended) >= 2 * len(FAILING)
    assert found_in("".join(ended)) == {EXCEPTION}
    kinds = Counter(event.get("type", "error") for event in events)
    assert min(kinds["error"], kinds["transaction"]) >= len(FAILING)
    for event in events:
        for frame in frames_of(event):
            of_the_team = frame.get("module") == HERE
            # The frame of a thread may still hold its exception.
            allowed = SECRETS - {PASSWORD} if of_the_team else {EXCEPTION}
            leaked = found_in(json.dumps(frame.get("vars", {}), default=str)) - allowed
            assert not leaked, (frame.get("module"), frame["function"], leaked)
            frame.pop("vars", None)
        assert found_in(json.dumps(event, default=str)) <= {EXCEPTION}
    # The row has a job's arguments and the errors that it raised, but not its result.
    for table in tables(url):
        rows = query(url, f"SELECT * FROM {table}")
        held = found_in(str(rows))
        allowed = {
            "billing_jobs": SECRETS - {PASSWORD},
            "billing_cron": {ARGUMENT},
        }.get(table, set())
        assert held == allowed, table
    errors = query(
        url, "SELECT errors FROM billing_jobs WHERE errors::text !~ %s", ARGUMENT
    )
    assert found_in(str(errors)) == {EXCEPTION}
    assert query(url, "SELECT count(*)::int FROM billing_jobs") == [(9,)]
    assert len(errors) == 8
