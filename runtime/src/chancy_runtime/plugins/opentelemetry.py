"""Traces pushes and runs of jobs with OpenTelemetry."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

from chancy import Job, QueuedJob
from opentelemetry import context, propagate, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, StatusCode

from chancy_runtime.execution.observers import InChild, headers_in, with_meta
from chancy_runtime.plugins.base import OnOurWorker
from chancy_runtime.version import VERSION

# The key in a job's meta for the context of its push.
META = "opentelemetry"
# https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/
_SYSTEM = {"messaging.system": "chancy"}
_QUEUE = "messaging.destination.name"
_OPERATION = "messaging.operation.name"
_TYPE = "messaging.operation.type"
_COUNT = "messaging.batch.message_count"
_ID = "messaging.message.id"
_ERROR = "error.type"
_FUNCTION = "code.function.name"
_ATTEMPT = "chancy.attempt"


class OpenTelemetryPlugin(OnOurWorker):
    """Creates a span for each push and for each run of a job, in one trace.

    The span of each run is a child of the span of its push and has a link to it, even in
    another process: the job's meta has the context. Spans do not contain arguments of jobs.
    The service configures the SDK and its exporter; without them nothing is recorded. Needs
    the extra `opentelemetry` of chancy-runtime.
    """

    def __init__(self) -> None:
        super().__init__()
        self._tracer = trace.get_tracer("chancy_runtime", VERSION)

    @staticmethod
    def get_identifier() -> str:
        return "chancy_runtime.opentelemetry"

    @contextmanager
    def observe_push(self, jobs: list[Job]) -> Iterator[list[Job]]:
        attributes: dict[str, str | int] = {
            **_SYSTEM,
            _OPERATION: "push",
            _TYPE: "send",
            _COUNT: len(jobs),
        }
        # There should be few different names of spans.
        name = "push"
        if len(functions := {job.func for job in jobs}) == 1:
            (attributes[_FUNCTION],) = functions
            name = f"push {_short(jobs[0])}"
        if len(queues := {job.queue for job in jobs}) == 1:
            (attributes[_QUEUE],) = queues
        with self._tracer.start_as_current_span(
            name,
            kind=SpanKind.PRODUCER,
            attributes=attributes,
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            carrier = _injected()
            try:
                yield (
                    [with_meta(job, META, carrier) for job in jobs] if carrier else jobs
                )
            except BaseException as error:
                # Without the text: PostgreSQL repeats in it the arguments that it refuses.
                kind = type(error)
                span.set_attribute(_ERROR, f"{kind.__module__}.{kind.__qualname__}")
                span.set_status(StatusCode.ERROR)
                raise

    @contextmanager
    def observe_run(self, job: QueuedJob) -> Iterator[InChild | None]:
        with _attached(headers_in(job, META)):
            pushed = trace.get_current_span().get_span_context()
            with self._tracer.start_as_current_span(
                f"run {_short(job)}",
                kind=SpanKind.CONSUMER,
                links=[Link(pushed)] if pushed.is_valid else [],
                attributes={
                    **_SYSTEM,
                    _OPERATION: "run",
                    _TYPE: "process",
                    _QUEUE: job.queue,
                    _ID: str(job.id),
                    _FUNCTION: job.func,
                    _ATTEMPT: job.attempts + 1,
                },
            ):
                carrier = _injected()
                yield functools.partial(_attached, carrier) if carrier else None


def _short(job: Job) -> str:
    return job.func.rpartition(".")[2]


def _injected() -> dict[str, str]:
    """Returns the current context as text."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


@contextmanager
def _attached(carrier: dict[str, str]) -> Iterator[None]:
    """Runs its block in the context of a carrier, without any context of this process."""
    token = context.attach(propagate.extract(carrier, context=Context()))
    try:
        yield
    finally:
        context.detach(token)
