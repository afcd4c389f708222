"""Traces pushes and runs of jobs with Sentry."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import sentry_sdk
from chancy import Job, QueuedJob

from chancy_runtime.execution.observers import InChild, headers_in, with_meta
from chancy_runtime.plugins.base import OnOurWorker

# The key in a job's meta for the headers of its push.
META = "sentry"
# https://develop.sentry.dev/sdk/telemetry/traces/modules/queues/
_PUBLISH = "queue.publish"
_PROCESS = "queue.process"
_QUEUE = "messaging.destination.name"
_ID = "messaging.message.id"
_RETRIES = "messaging.message.retry.count"


class SentryTraces(OnOurWorker):
    """Creates a transaction for each run of a job, in the trace of its push.

    A push within a transaction, such as that of a request, is a span of the transaction.
    Failures of the job belong to the same trace. The service calls sentry_sdk.init(), where
    `traces_sample_rate` sets how many traces are sent. Needs the extra `sentry` of
    chancy-runtime.

    Args:
        service: The value of the tag `service`.
    """

    def __init__(self, *, service: str) -> None:
        super().__init__()
        self.service = service

    @staticmethod
    def get_identifier() -> str:
        return "chancy_runtime.sentry_traces"

    @contextmanager
    def observe_push(self, jobs: list[Job]) -> Iterator[list[Job]]:
        if not sentry_sdk.get_client().is_active():
            yield jobs
            return
        current = sentry_sdk.get_current_span()
        with current.start_child(op=_PUBLISH) if current else nullcontext() as span:
            if span is not None:
                span.description = jobs[0].func
                span.set_data(_QUEUE, jobs[0].queue)
            headers = _headers()
            yield [with_meta(job, META, headers) for job in jobs]

    @contextmanager
    def observe_run(self, job: QueuedJob) -> Iterator[InChild | None]:
        if not sentry_sdk.get_client().is_active():
            yield None
            return
        transaction = sentry_sdk.continue_trace(
            headers_in(job, META), op=_PROCESS, name=job.func, source="task"
        )
        transaction.set_tag("service", self.service)
        transaction.set_data(_ID, str(job.id))
        transaction.set_data(_QUEUE, job.queue)
        transaction.set_data(_RETRIES, job.attempts)
        with sentry_sdk.start_transaction(transaction):
            yield functools.partial(_continued, _headers())
            transaction.set_status("ok")


def _headers() -> dict[str, str]:
    """Returns the headers that Sentry sends with a request in the current trace."""
    found = {
        "sentry-trace": sentry_sdk.get_traceparent(),
        "baggage": sentry_sdk.get_baggage(),
    }
    return {name: value for name, value in found.items() if value}


@contextmanager
def _continued(headers: dict[str, str]) -> Iterator[None]:
    """Continues a trace in a child process, if Sentry is in use there."""
    if sentry_sdk.get_client().is_active():
        sentry_sdk.continue_trace(headers)
    yield
