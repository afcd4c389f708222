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

# Where the meta of a job has the context of its push.
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
    """Makes a span for each push and for each run of a job, in one trace.

    The span of a run is a child of the span of its push and has a link to it, also in
    another process and for each attempt: the job's meta carries the context. Arguments of
    jobs are in no span. The SDK and its exporter stay with the service; without them
    nothing is recorded. Needs the extra `opentelemetry` of chancy-runtime.
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
        # A name has to be one of few.
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
                # Not its text, in which PostgreSQL repeats arguments that it refuses.
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
    """Goes on in the context that a carrier has, and in none of this process."""
    token = context.attach(propagate.extract(carrier, context=Context()))
    try:
        yield
    finally:
        context.detach(token)
