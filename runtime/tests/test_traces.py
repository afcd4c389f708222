"""A run of a job is in the trace of its push, even in another process."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
import sentry_sdk
from chancy_runtime import (
    Chancy,
    CronJob,
    Job,
    OpenTelemetryPlugin,
    PrometheusPlugin,
    Reference,
    SentryCheckIns,
    SentryPlugin,
    SentryTraces,
    schedule_cron_jobs,
)
from chancy_runtime.app import RunningWorker
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

from harness.commands import environment, run
from harness.databases import query
from harness.observed import (
    EXECUTORS,
    create_chancy,
    fails,
    fails_once,
    succeeds,
    traced,
    until_none,
    waits,
    working,
)
from harness.sentry import sentry_of_all_kinds

pytestmark = pytest.mark.anyio

TRACED = Job.from_func(traced)
SECRET = "hunter2"


def named(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    return [span for span in spans.get_finished_spans() if span.name == name]


def ids(span: Any) -> tuple[str, str]:
    """The ids of the trace and the span of a span or a link, as headers have them."""
    context = span if isinstance(span, SpanContext) else span.context
    return (
        trace.format_trace_id(context.trace_id),
        trace.format_span_id(context.span_id),
    )


async def ended(chancy: Chancy, *jobs: Any) -> None:
    """Pushes jobs and waits for their ends."""
    references = [await chancy.push(job) for job in jobs]
    await chancy.wait_for_jobs(references, timeout=120)


@pytest.mark.parametrize("executor", EXECUTORS)
async def test_a_run_is_in_the_trace_of_its_push(
    executor: str, tables: str, tmp_path: Path, spans: InMemorySpanExporter
) -> None:
    file = tmp_path / "headers.json"
    job = TRACED.with_queue(executor).with_kwargs(file=str(file))
    chancy = create_chancy(tables, OpenTelemetryPlugin())
    async with working(chancy, executor):
        with trace.get_tracer("app").start_as_current_span("request"):
            await ended(chancy, job.with_meta({"of": "the team"}))
        await until_none(lambda: missing(spans, "run traced"))

    # Cron has polled, and there was nothing to push.
    assert named(spans, "push") == []
    (request,), (push,), (ran,) = (
        named(spans, name) for name in ("request", "push traced", "run traced")
    )
    assert push.parent and ids(push.parent) == ids(request)
    assert ran.parent and ids(ran.parent) == ids(push)
    assert [ids(link) for link in ran.links] == [ids(push)]
    assert (push.kind, ran.kind) == (SpanKind.PRODUCER, SpanKind.CONSUMER)
    ((id, meta),) = query(tables, "SELECT id::text, meta FROM billing_jobs")
    assert ran.attributes == {
        "messaging.system": "chancy",
        "messaging.operation.name": "run",
        "messaging.operation.type": "process",
        "messaging.destination.name": executor,
        "messaging.message.id": id,
        "code.function.name": "harness.observed.traced",
        "chancy.attempt": 1,
    }
    assert meta["of"] == "the team"
    # Spans of the job itself are in its run, even if it runs in a child process.
    inside = json.loads(file.read_text())["traceparent"].split("-")[1:3]
    assert tuple(inside) == ids(ran)
    if executor != "process":  # The SDK of this process is not in the child.
        (own,) = named(spans, "of the job")
        assert own.parent and ids(own.parent) == ids(ran)
    assert str(file) not in "".join(each.to_json() for each in (push, ran))


async def missing(spans: InMemorySpanExporter, name: str, count: int = 1) -> bool:
    return len(named(spans, name)) < count


async def test_each_way_to_push_carries_the_trace(
    tables: str, spans: InMemorySpanExporter
) -> None:
    chancy = create_chancy(tables, OpenTelemetryPlugin())
    with trace.get_tracer("app").start_as_current_span("request") as request:
        async with chancy:
            await chancy.push(succeeds)
            async for _ in chancy.push_many([succeeds.job] * 3, batch_size=2):
                pass
            async for _ in chancy.push_many([succeeds.job, fails.job]):
                pass
        with chancy:
            chancy.sync_push(succeeds.job)
            for _ in chancy.sync_push_many([succeeds.job] * 2):
                pass

    pushes = {ids(span)[1]: span for span in spans.get_finished_spans()}
    del pushes[ids(request)[1]]
    carried = [
        meta["opentelemetry"]["traceparent"].split("-")[1:3]
        for (meta,) in query(tables, "SELECT meta FROM billing_jobs ORDER BY id")
    ]
    assert {trace_id for trace_id, _ in carried} == {ids(request)[0]}
    counts = [
        sum(parent == span for _, parent in carried)
        for span in sorted(pushes, key=lambda each: pushes[each].start_time or 0)
    ]
    assert counts == [1, 2, 1, 2, 1, 2]
    assert [
        (span.attributes or {})["messaging.batch.message_count"]
        for span in sorted(pushes.values(), key=lambda each: each.start_time or 0)
    ] == counts
    assert {span.name for span in pushes.values()} == {"push succeeds", "push"}


PUSH_ELSEWHERE = """
import sys
from chancy_runtime import OpenTelemetryPlugin
from harness.observed import create_chancy, succeeds
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
trace.set_tracer_provider(TracerProvider())
with trace.get_tracer("script").start_as_current_span("script") as span:
    with create_chancy(sys.argv[1], OpenTelemetryPlugin()) as chancy:
        chancy.sync_push(succeeds.job)
print(trace.format_trace_id(span.get_span_context().trace_id))
"""


async def test_a_run_is_in_the_trace_of_a_push_of_another_process(
    tables: str, spans: InMemorySpanExporter
) -> None:
    folder = Path(__file__).parent
    pushed = run(
        *(sys.executable, "-c", PUSH_ELSEWHERE, tables),
        cwd=folder,
        env=environment(),
    )
    async with working(create_chancy(tables, OpenTelemetryPlugin())):
        await until_none(lambda: missing(spans, "run succeeds"))

    (ran,) = named(spans, "run succeeds")
    assert ids(ran)[0] == pushed.stdout.strip()


async def test_a_push_that_fails_puts_no_argument_into_its_span(
    tables: str, spans: InMemorySpanExporter
) -> None:
    """PostgreSQL's errors repeat refused values, such as a text with a NUL."""
    async with create_chancy(tables, OpenTelemetryPlugin()) as chancy:
        with pytest.raises(psycopg.DataError, match=SECRET):
            await chancy.push(succeeds.job.with_kwargs(note=f"{SECRET}\0"))

    (push,) = named(spans, "push succeeds")
    assert push.status.status_code == StatusCode.ERROR
    assert SECRET not in push.to_json()
    assert "UntranslatableCharacter" in push.to_json()


async def test_each_attempt_is_a_span_and_a_failed_one_has_its_error(
    tables: str, spans: InMemorySpanExporter
) -> None:
    chancy = create_chancy(tables, OpenTelemetryPlugin())
    async with working(chancy):
        await ended(chancy, fails_once)
        await until_none(lambda: missing(spans, "run fails_once", 2))

    (push,) = named(spans, "push fails_once")
    first, second = named(spans, "run fails_once")
    assert first.parent and second.parent
    assert ids(first.parent) == ids(second.parent) == ids(push)
    assert (first.status.status_code, second.status.status_code) == (
        StatusCode.ERROR,
        StatusCode.UNSET,
    )
    assert [event.name for event in first.events] == ["exception"]
    assert [(each.attributes or {})["chancy.attempt"] for each in (first, second)] == [
        *(1, 2)
    ]


async def test_a_run_without_the_trace_of_a_push_begins_a_trace(
    tables: str, spans: InMemorySpanExporter
) -> None:
    """Even if a span was current when the workers started."""
    async with create_chancy(tables) as pusher:
        await pusher.push(succeeds)
        await pusher.push(succeeds.job.with_meta({"opentelemetry": {"traceparent": 7}}))
    assert spans.get_finished_spans() == ()
    with trace.get_tracer("app").start_as_current_span("start"):
        async with working(create_chancy(tables, OpenTelemetryPlugin())):
            await until_none(lambda: missing(spans, "run succeeds", 2))

    runs = named(spans, "run succeeds")
    assert [(each.parent, each.links) for each in runs] == [(None, ())] * 2


async def test_a_meta_that_cannot_carry_a_trace_is_pushed_as_it_is(
    tables: str, spans: InMemorySpanExporter
) -> None:
    plugins = [OpenTelemetryPlugin(), SentryTraces(service="billing")]
    with sentry_on():
        async with create_chancy(tables, *plugins) as chancy:
            await chancy.push(succeeds.job.with_meta(cast(Any, ["a list"])))
            await chancy.push(succeeds.job.with_meta(cast(Any, None)))

    found = [
        meta for (meta,) in query(tables, "SELECT meta FROM billing_jobs ORDER BY id")
    ]
    assert found[0] == ["a list"]
    assert found[1].keys() == {"opentelemetry", "sentry"}


@pytest.mark.parametrize("executor", EXECUTORS)
async def test_runs_that_a_stop_cuts_short_go_back_without_an_error(
    executor: str,
    tables: str,
    tmp_path: Path,
    spans: InMemorySpanExporter,
    caplog: pytest.LogCaptureFixture,
) -> None:
    end = tmp_path / "end"
    plugins = [
        OpenTelemetryPlugin(),
        SentryPlugin(service="billing"),
        SentryTraces(service="billing"),
        PrometheusPlugin(service="billing"),
    ]
    with sentry_on(traces_sample_rate=1.0) as items:
        chancy = create_chancy(tables, *plugins, grace=1)
        async with working(chancy, executor):
            for _ in range(3):
                job = waits.job.with_queue(executor).with_kwargs(file=str(end))
                await chancy.push(job)
            await until_none(lambda: not_in_state(tables, "running", jobs=3))
        # A thread cannot be interrupted: it ends by itself, and its span with it.
        end.touch()
        await until_none(lambda: missing(spans, "run waits", count=3))

    rows = query(tables, "SELECT state, attempts FROM billing_jobs")
    assert rows == [("pending", 0)] * 3
    assert len(named(spans, "run waits")) == 3
    assert items["event"] == []
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


async def not_in_state(url: str, state: str, jobs: int = 1) -> bool:
    return query(url, "SELECT state FROM billing_jobs") != [(state,)] * jobs


async def test_without_a_plugin_nothing_is_added_to_a_job(tables: str) -> None:
    with trace.get_tracer("app").start_as_current_span("request"):
        async with create_chancy(tables) as chancy:
            await chancy.push(succeeds)

    assert query(tables, "SELECT meta FROM billing_jobs") == [({},)]


# --- Sentry -------------------------------------------------------------------------


@contextmanager
def sentry_on(**options: Any) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Sentry in this process; yields received items by type, complete after the block."""
    with sentry_of_all_kinds() as (dsn, items), sentry_sdk.isolation_scope():
        sentry_sdk.init(dsn, default_integrations=False, **options)
        try:
            yield items
        finally:
            sentry_sdk.flush(10)
            sentry_sdk.Scope.get_global_scope().set_client(None)


@pytest.mark.parametrize("executor", EXECUTORS)
async def test_sentry_has_a_run_and_its_failure_in_the_trace_of_the_push(
    executor: str, tables: str, tmp_path: Path
) -> None:
    file = tmp_path / "headers.json"
    jobs = [
        TRACED.with_queue(executor).with_kwargs(file=str(file)),
        Job.from_func(fails, queue=executor).with_kwargs(note=SECRET),
    ]
    plugins = [SentryPlugin(service="billing"), SentryTraces(service="billing")]
    with sentry_on(traces_sample_rate=1.0) as items:
        chancy = create_chancy(tables, *plugins)
        async with working(chancy, executor):
            with sentry_sdk.start_transaction(name="request", op="http.server"):
                await ended(chancy, *jobs)

    found = {each["transaction"]: each for each in items["transaction"]}
    request = found.pop("request")
    assert found.keys() == {job.func for job in jobs}
    spans = {
        span["description"]: span
        for span in request["spans"]
        if span["op"] == "queue.publish"
    }
    for func, each in found.items():
        context = each["contexts"]["trace"]
        assert context["op"] == "queue.process"
        assert context["trace_id"] == request["contexts"]["trace"]["trace_id"]
        assert context["parent_span_id"] == spans[func]["span_id"]
        assert context["data"]["messaging.destination.name"] == executor
        assert each["tags"]["service"] == "billing"
    (ok, failed) = (found[job.func]["contexts"]["trace"]["status"] for job in jobs)
    assert (ok, failed) == ("ok", "internal_error")
    traces = {
        each["exception"]["values"][-1]["type"]: each["contexts"]["trace"]["trace_id"]
        for each in items["event"]
    }
    assert traces == {"RuntimeError": request["contexts"]["trace"]["trace_id"]}
    if executor != "process":  # Its child has a Sentry of its own, or none.
        inside = json.loads(file.read_text())["sentry-trace"].split("-")[:2]
        own = found[jobs[0].func]["contexts"]["trace"]
        assert inside == [own["trace_id"], own["span_id"]]
    assert SECRET not in json.dumps(items["transaction"])


async def test_sentry_traces_nothing_if_it_is_not_set_up(tables: str) -> None:
    sentry_sdk.Scope.get_global_scope().set_client(None)
    chancy = create_chancy(tables, SentryTraces(service="billing"))
    async with working(chancy):
        await ended(chancy, succeeds)

    assert query(tables, "SELECT state, meta FROM billing_jobs") == [("succeeded", {})]


async def run_cron_job(chancy: Chancy, url: str, cron_job: CronJob) -> None:
    """Makes a schedule due now, and waits for the end of its run."""
    await schedule_cron_jobs(chancy, [cron_job])
    query(url, "UPDATE billing_cron SET next_run = NOW()")

    async def unfinished() -> bool:
        states = query(url, "SELECT state FROM billing_jobs")
        return not states or states[0][0] not in ("succeeded", "failed")

    await until_none(unfinished)


@pytest.mark.parametrize(
    ("job", "statuses"),
    [
        (succeeds, ["in_progress", "ok"]),
        # Two attempts are one run.
        (fails_once, ["in_progress", "in_progress", "ok"]),
        (fails, ["in_progress", "error"]),
    ],
)
async def test_each_run_of_a_schedule_checks_in_with_sentry(
    job: Any, statuses: list[str], tables: str
) -> None:
    plugin = SentryCheckIns(service="billing", max_runtime=45)
    with sentry_on() as items:
        chancy = create_chancy(tables, plugin)
        async with working(chancy):
            await run_cron_job(
                chancy,
                tables,
                CronJob(
                    job=job,
                    cron="0 7 * * mon-fri",
                    timezone="Europe/London",
                    name="Daily Mail",
                ),
            )

    found = items["check_in"]
    assert [each["status"] for each in found] == statuses
    ((id,),) = query(tables, "SELECT id FROM billing_jobs")
    assert {each["check_in_id"] for each in found} == {id.hex}
    assert {each["monitor_slug"] for each in found} == {"billing-daily-mail"}
    assert found[0]["monitor_config"] == {
        "schedule": {"type": "crontab", "value": "0 7 * * mon-fri"},
        "timezone": "Europe/London",
        "checkin_margin": 5,
        "max_runtime": 45,
    }


async def test_a_schedule_keeps_the_team_s_meta(tables: str) -> None:
    chancy = create_chancy(tables)
    async with working(chancy):
        job = succeeds.job.with_meta({"schedule": "nightly"})
        await run_cron_job(chancy, tables, CronJob(job=job, cron="0 7 * * *"))

    assert query(tables, "SELECT meta ->> 'schedule' FROM billing_jobs") == [
        ("nightly",)
    ]


async def test_a_cancelled_run_of_a_schedule_checks_in_as_failed(
    tables: str, tmp_path: Path
) -> None:
    """Its row is failed, and without a check-in Sentry would wait for its end."""
    never = waits.job.with_kwargs(file=str(tmp_path / "end")).with_max_attempts(3)
    with sentry_on() as items:
        chancy = create_chancy(tables, SentryCheckIns(service="billing"))
        async with working(chancy):
            await schedule_cron_jobs(chancy, [CronJob(job=never, cron="0 7 * * *")])
            query(tables, "UPDATE billing_cron SET next_run = NOW()")
            await until_none(lambda: not_in_state(tables, "running"))
            ((id,),) = query(tables, "SELECT id FROM billing_jobs")
            await chancy.cancel_job(Reference(id))
            (worker,) = chancy.workers
            await until_none(lambda: jobs_of(worker))

    assert [each["status"] for each in items["check_in"]] == ["in_progress", "error"]


async def jobs_of(worker: RunningWorker) -> list[int]:
    """The numbers of running jobs of the executors that have any."""
    counts = (len(each.get_running_jobs()) for each in worker.executors.values())
    return [count for count in counts if count]


async def test_a_job_that_no_schedule_pushed_does_not_check_in(tables: str) -> None:
    with sentry_on() as items:
        chancy = create_chancy(tables, SentryCheckIns(service="billing"))
        async with working(chancy):
            await ended(chancy, succeeds)

    assert items["check_in"] == []


async def test_names_of_monitors_are_short_and_differ(tables: str) -> None:
    names = [f"{'report-' * 8}{which}" for which in ("daily", "weekly")]
    with sentry_on() as items:
        chancy = create_chancy(tables, SentryCheckIns(service="billing"))
        async with working(chancy):
            for name in names:
                cron_job = CronJob(job=succeeds, cron="0 7 * * *", name=name)
                await run_cron_job(chancy, tables, cron_job)
                query(tables, "DELETE FROM billing_jobs")

    slugs = {each["monitor_slug"] for each in items["check_in"]}
    assert len(slugs) == 2
    assert all(len(slug) <= 50 for slug in slugs)
