"""The metrics for Prometheus, read by its own parser, over HTTP."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from chancy import QueuedJob
from chancy_runtime import Chancy, PrometheusPlugin, migrate
from chancy_runtime.plugins import prometheus
from chancy_runtime.web import metrics_router
from fastapi import FastAPI
from prometheus_client import Counter, parser
from prometheus_client.openmetrics import parser as openmetrics

from harness.databases import query
from harness.observed import (
    create_chancy,
    fails,
    fails_once,
    serving,
    succeeds,
    until_none,
    waits,
    working,
)

pytestmark = pytest.mark.anyio

DOCS = Path(__file__).parents[2] / "docs"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
# These modules have no types.
parse: Any = parser.text_string_to_metric_families
parse_openmetrics: Any = openmetrics.text_string_to_metric_families
# A counter that a job of a service defines, in prometheus_client's default registry.
EMAILS = Counter("emails_sent", "By the jobs.")


@pytest.fixture(autouse=True)
def always_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes each scrape read the depths again."""
    monkeypatch.setattr(prometheus, "_FRESH", -1)


def billing(url: str) -> Chancy:
    return create_chancy(url, PrometheusPlugin(service="billing"))


class Scrape:
    """The samples of a scrape, summed over the labels that are not given."""

    def __init__(self, families: Any) -> None:
        self.families = {family.name: family for family in families}
        self.samples = [each for family in families for each in family.samples]

    def __call__(self, name: str, **labels: str) -> float | None:
        found = [
            sample.value
            for sample in self.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]
        return sum(found) if found else None

    def has(self, wanted: Mapping[tuple[str, str], float | None]) -> bool:
        """Whether metrics, by name and queue, have these values."""
        return all(
            self(name, **({"queue": queue} if queue else {})) == value
            for (name, queue), value in wanted.items()
        )


async def scrape(address: str, path: str = "/metrics", accept: str = "") -> Scrape:
    """The answer that Prometheus gets; by default it waits for 10 s."""
    headers = {"accept": accept} if accept else {}
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{address}{path}", headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    if accept == OPENMETRICS:
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        return Scrape([*parse_openmetrics(answer.text)])
    assert answer.headers["content-type"].startswith("text/plain; version=")
    return Scrape([*parse(answer.text)])


async def scraped(address: str, wanted: Mapping[tuple[str, str], float]) -> Scrape:
    """The first scrape with these values; a result is counted only after it is saved."""
    found = await scrape(address)
    async with asyncio.timeout(60):
        while not found.has(wanted):
            await asyncio.sleep(0.05)
            found = await scrape(address)
    return found


def app_of(*chancys: Chancy) -> FastAPI:
    app = FastAPI()
    app.include_router(metrics_router(*(lambda c=each: c for each in chancys)))
    return app


async def test_a_scrape_shows_running_ended_and_waiting_jobs(
    tables: str, tmp_path: Path
) -> None:
    end = tmp_path / "end"
    async with working(billing(tables)) as chancy, serving(app_of(chancy)) as address:
        later = datetime.now(tz=UTC) + timedelta(hours=1)
        # Like a job whose decorator ran at the start of the process.
        decorated = succeeds.job.with_scheduled_at(later - timedelta(hours=3))
        for each in (
            *[decorated] * 3,
            *(fails.job, fails_once.job, waits.job.with_kwargs(file=str(end))),
            # No worker serves these queues.
            *[decorated.with_queue("forgotten")] * 4,
            *[succeeds.job.with_queue("forgotten").with_scheduled_at(later)] * 2,
        ):
            await chancy.push(each)
        found = await scraped(
            address,
            {
                ("chancy_jobs_running", "async"): 1,
                ("chancy_jobs_ended_total", "async"): 6,
            },
        )
        end.touch()
        at_the_end = await scraped(address, {("chancy_jobs_running", "async"): 0})

    def ended(outcome: str) -> float | None:
        return found("chancy_jobs_ended_total", service="billing", outcome=outcome)

    assert (ended("succeeded"), ended("failed"), ended("retrying")) == (4, 1, 1)
    once = "harness.observed.fails_once"
    assert found("chancy_jobs_ended_total", func=once, outcome="retrying") == 1
    assert found.has(
        {
            ("chancy_jobs_started_total", "async"): 7,
            ("chancy_job_duration_seconds_count", "async"): 6,
            # The first attempt of each job.
            ("chancy_job_wait_seconds_count", "async"): 6,
            ("chancy_queue_concurrency", "async"): 5,
            ("chancy_queue_depth", "async"): 0,
            ("chancy_queue_oldest_seconds", "async"): 0,
            ("chancy_queue_depth", "forgotten"): 4,
            ("chancy_queue_scheduled", "forgotten"): 2,
            ("chancy_workers", ""): 1,
            ("chancy_leader", ""): 1,
            ("chancy_failing_tasks", ""): 0,
            ("chancy_database_up", ""): 1,
        }
    )
    assert 0 < (found("chancy_queue_oldest_seconds", queue="forgotten") or 0) < 60
    waited = found("chancy_job_wait_seconds_sum", queue="async")
    assert waited is not None and 0 <= waited < 60
    assert at_the_end("chancy_job_duration_seconds_count", queue="async") == 7
    # The other metrics of the process: its own, and those of its jobs.
    assert found("process_cpu_seconds_total") is not None
    assert found("emails_sent_total") == 0


async def test_each_executor_counts_a_run_once(tables: str) -> None:
    executors = ("async", "thread", "process")
    async with (
        working(billing(tables), *executors) as chancy,
        serving(app_of(chancy)) as address,
    ):
        for queue in executors:
            await chancy.push(succeeds.job.with_queue(queue))
        wanted = {("chancy_jobs_ended_total", queue): 1.0 for queue in executors}
        found = await scraped(address, wanted)

    for queue in executors:
        assert found("chancy_jobs_started_total", queue=queue) == 1
        assert found("chancy_job_duration_seconds_count", queue=queue) == 1


async def test_replicas_share_the_counts_and_show_the_same_depths(tables: str) -> None:
    async with AsyncExitStack() as stack:
        replicas = [
            await stack.enter_async_context(working(billing(tables))) for _ in range(2)
        ]
        addresses = [
            await stack.enter_async_context(serving(app_of(each))) for each in replicas
        ]
        await push_many(replicas[0], succeeds.job, 20)
        await push_many(replicas[0], succeeds.job.with_queue("forgotten"), 5)
        await until_none(
            lambda: unfinished(replicas[0].prefix, tables, but="forgotten")
        )
        async with asyncio.timeout(60):
            while True:
                found = [await scrape(address) for address in addresses]
                ended = [
                    each("chancy_jobs_ended_total", outcome="succeeded") or 0
                    for each in found
                ]
                if sum(ended) == 20:
                    break
                await asyncio.sleep(0.05)

    depths = [each("chancy_queue_depth", queue="forgotten") for each in found]
    assert depths == [5, 5]
    assert sum(each("chancy_leader") or 0 for each in found) == 1
    assert sum(each("chancy_workers") or 0 for each in found) == 2


async def push_many(chancy: Chancy, job: Any, count: int) -> None:
    async for _ in chancy.push_many([job] * count):
        pass


async def unfinished(prefix: str, url: str, but: str) -> list[tuple[object, ...]]:
    return query(
        url,
        f"SELECT id FROM {prefix}jobs WHERE state <> 'succeeded' AND queue <> %s",
        but,
    )


async def test_two_services_in_a_process_are_distinguished_in_one_scrape(
    database_url: str,
) -> None:
    services = [
        create_chancy(database_url, PrometheusPlugin(service=name), prefix=f"{name}_")
        for name in ("billing", "shipping")
    ]
    for each in services:
        await migrate(each)
    async with (
        working(services[0]) as billing_,
        working(services[1]) as shipping,
        serving(app_of(billing_, shipping)) as address,
    ):
        await billing_.push(succeeds)
        await push_many(shipping, succeeds.job, 2)
        await scraped(address, {("chancy_jobs_ended_total", "async"): 3})
        # This parser refuses a duplicate name.
        found = await scrape(address, accept=OPENMETRICS)

    for service, count in (("billing", 1), ("shipping", 2)):
        assert found("chancy_jobs_ended_total", service=service) == count
        assert found("chancy_workers", service=service) == 1
        assert found("chancy_queue_depth", service=service, queue="async") == 0


async def test_a_database_that_does_not_answer_only_hides_the_depths(
    tables: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus, "_PATIENCE", 0.5)
    async with working(billing(tables)) as chancy, serving(app_of(chancy)) as address:
        await chancy.push(succeeds)
        await scraped(
            address,
            {
                ("chancy_jobs_ended_total", "async"): 1,
                ("chancy_queue_depth", "async"): 0,
            },
        )
        with psycopg.connect(tables) as other:
            other.execute("LOCK TABLE billing_jobs IN ACCESS EXCLUSIVE MODE")
            found = await scrape(address)
            other.rollback()
        back = await scraped(address, {("chancy_database_up", ""): 1})

    assert found("chancy_database_up") == 0
    assert found("chancy_queue_depth") is None
    assert found("chancy_jobs_ended_total") == 1
    assert found("chancy_workers") == 1
    assert back("chancy_queue_depth", queue="async") == 0


async def test_scrapes_at_the_same_time_share_one_query(
    tables: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus, "_FRESH", 60)
    plugin = PrometheusPlugin(service="billing")
    async with (
        working(create_chancy(tables, plugin)) as chancy,
        serving(app_of(chancy)) as address,
    ):
        await asyncio.gather(*(scrape(address) for _ in range(5)))
        (first,) = {plugin._reading}
        await chancy.push(succeeds.job.with_queue("forgotten"))
        found = await scrape(address)

    assert plugin._reading is first
    assert found("chancy_queue_depth", queue="async") == 0
    assert found("chancy_queue_depth", queue="forgotten") is None


async def test_a_service_that_only_pushes_shows_waiting_jobs(tables: str) -> None:
    async with billing(tables) as chancy, serving(app_of(chancy)) as address:
        await chancy.push(succeeds)
        found = await scrape(address)

    assert found("chancy_queue_depth", queue="async") == 1
    assert found("chancy_workers") == 0


async def test_tables_without_the_indexes_have_no_depths(tables: str) -> None:
    query(tables, "DROP INDEX billing_runtime_jobs_later")
    async with billing(tables) as chancy, serving(app_of(chancy)) as address:
        found = await scrape(address)

    assert found("chancy_database_up") == 1
    assert found("chancy_queue_depth") is None


async def test_an_app_that_shows_its_own_metrics_leaves_those_out(tables: str) -> None:
    app = FastAPI()
    async with billing(tables) as chancy:
        app.include_router(
            metrics_router(lambda: chancy, with_process=False), prefix="/workers"
        )
        async with serving(app) as address:
            found = await scrape(address, "/workers/metrics")

    assert {name for name in found.families if not name.startswith("chancy_")} == set()
    assert found("chancy_workers") == 0


async def test_a_service_without_the_plugin_or_a_start_says_so(tables: str) -> None:
    def not_started() -> Chancy:
        raise RuntimeError("Chancy is not running in this process")

    app = FastAPI()
    app.include_router(metrics_router(not_started), prefix="/early")
    async with create_chancy(tables) as chancy:
        app.include_router(metrics_router(lambda: chancy))
        async with serving(app) as address, httpx.AsyncClient() as client:
            answer = await client.get(f"{address}/metrics")
            early = await scrape(address, "/early/metrics")

    assert answer.status_code == 404
    assert answer.json()["detail"] == (
        "there are no metrics: add PrometheusPlugin(service=…) to the plugins in "
        "app.billing.workers"
    )
    assert early("process_cpu_seconds_total") is not None


async def test_functions_beyond_a_number_count_as_one() -> None:
    plugin = PrometheusPlugin(service="billing")
    for number in range(prometheus._MOST_FUNCTIONS + 3):
        run = QueuedJob(
            id=uuid4(), func=f"app.job_{number}", created_at=datetime.now(tz=UTC)
        )
        with plugin.observe_run(run):
            pass

    found = Scrape([*plugin.registry.collect()])
    assert found("chancy_jobs_started_total", func="app.job_0") == 1
    assert found("chancy_jobs_started_total", func="other") == 3
    assert found("chancy_jobs_started_total") == prometheus._MOST_FUNCTIONS + 3


@pytest.mark.parametrize("page", ["metrics.md", "grafana-dashboard.json", "alerts.yml"])
async def test_each_metric_in_the_docs_is_one_that_is_scraped(
    page: str, tables: str
) -> None:
    text = (DOCS / page).read_text()
    async with billing(tables) as chancy, serving(app_of(chancy)) as address:
        found = await scrape(address)

    families = {
        name: family.type
        for name, family in found.families.items()
        if name.startswith("chancy_") and not name.endswith("_created")
    }
    ends = {"counter": ["_total"], "histogram": ["", "_bucket", "_count", "_sum"]}
    known = {
        f"{name}{end}"
        for name, kind in families.items()
        for end in ends.get(kind, [""])
    }
    named = set(re.findall(r"\bchancy_(?!runtime)[a-z_]+", text))
    assert named
    assert named <= known
    if page == "metrics.md":
        assert families.keys() <= {name.removesuffix("_total") for name in named}


def test_the_dashboard_sums_metrics_of_processes_but_no_depths() -> None:
    dashboard = json.loads((DOCS / "grafana-dashboard.json").read_text())
    queries = [
        target["expr"]
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    ]

    assert len(queries) > 8
    for expression in queries:
        shared = re.search(r"chancy_queue_(depth|scheduled|oldest_seconds)", expression)
        assert expression.startswith("max by (" if shared else ("sum", "histogram_"))
        assert 'service=~"$service"' in expression


@pytest.mark.parametrize("module", ["prometheus_client", "opentelemetry"])
def test_without_the_extra_only_its_plugin_is_missing(
    module: str, tmp_path: Path
) -> None:
    name = {
        "prometheus_client": "PrometheusPlugin",
        "opentelemetry": "OpenTelemetryPlugin",
    }[module]
    (tmp_path / f"{module}.py").write_text("raise ImportError('not installed')\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "import chancy_runtime, chancy_runtime.cli\n"
        "print('imported')\n"
        f"from chancy_runtime import {name}\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )

    assert result.stdout == "imported\n"
    extra = module.removesuffix("_client")
    assert f"install chancy-runtime[{extra}], or" in result.stderr.splitlines()[-1]


def test_unused_metrics_are_not_imported() -> None:
    code = (
        "import sys, chancy_runtime, chancy_runtime.cli\n"
        "extras = ('prometheus_client', 'opentelemetry', 'sentry_sdk')\n"
        "print([name for name in extras if name in sys.modules])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    )

    assert result.stdout == "[]\n", result.stderr
