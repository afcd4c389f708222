"""Metrics of the workers and their queues, for Prometheus."""

import asyncio
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any

import psycopg
from chancy import QueuedJob
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from chancy_runtime.app import Chancy
from chancy_runtime.errors import WorkersError
from chancy_runtime.jobs.depths import MOST, Depth, read_depths
from chancy_runtime.plugins.base import OnOurWorker
from chancy_runtime.postgres.connections import autocommit

# From a job that sends one query to a job that takes an hour.
_DURATIONS = (0.005, 0.02, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600)
# From a free worker that is notified at once to a backlog of a day.
_WAITS = (0.01, 0.05, 0.2, 1, 5, 15, 60, 300, 900, 3600, 14_400, 86_400)
# A row can name any function; the functions beyond this number are counted as one.
_MOST_FUNCTIONS = 200
_OTHER = "other"
# Seconds for which depths count as current, and seconds that a scrape waits for them.
_FRESH = 5.0
_PATIENCE = 3.0


class PrometheusPlugin(OnOurWorker):
    """Counts the jobs that the workers of this process run; metrics_router() shows metrics.

    Counters and histograms are about this process. The metrics of the queues in the database
    are the same in each process of the service. Needs the extra `prometheus` of
    chancy-runtime. docs/metrics.md lists the metrics.

    Args:
        service: The value of the label `service` of each metric.
    """

    def __init__(self, *, service: str) -> None:
        super().__init__()
        self.service = service
        # Each service has its own: two services may run in one process.
        self.registry = CollectorRegistry()
        by_queue = ("service", "queue")
        by_function = (*by_queue, "func")
        self._started = Counter(
            "chancy_jobs_started",
            "Runs of jobs that began; each attempt of a job is a run.",
            by_function,
            registry=self.registry,
        )
        self._ended = Counter(
            "chancy_jobs_ended",
            "Runs of jobs whose result was saved: succeeded, failed, or retrying when the "
            "job failed and runs again.",
            (*by_function, "outcome"),
            registry=self.registry,
        )
        self._duration = Histogram(
            "chancy_job_duration_seconds",
            "How long runs of jobs took.",
            by_function,
            buckets=_DURATIONS,
            registry=self.registry,
        )
        self._wait = Histogram(
            "chancy_job_wait_seconds",
            "Time from the moment at which a job could run to its first start.",
            by_queue,
            buckets=_WAITS,
            registry=self.registry,
        )
        self._functions: set[str] = set()
        self._depths: Sequence[Depth] | None = None
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    @staticmethod
    def get_identifier() -> str:
        return "chancy_runtime.prometheus"

    # --- runs of jobs ----------------------------------------------------------------

    @contextmanager
    def observe_run(self, job: QueuedJob) -> Iterator[None]:
        labels = self._labels(job)
        self._started.labels(*labels).inc()
        if job.attempts == 0 and job.started_at:
            # By default, scheduled_at is the time at which the decorator ran.
            due = max(filter(None, (job.created_at, job.scheduled_at)))
            waited = (job.started_at - due).total_seconds()
            self._wait.labels(*labels[:2]).observe(max(0.0, waited))
        since = time.perf_counter()
        try:
            yield
        finally:
            self._duration.labels(*labels).observe(time.perf_counter() - since)

    async def on_job_updated(self, *, worker: Any, job: QueuedJob) -> None:
        self._ended.labels(*self._labels(job), job.state.value).inc()

    def _labels(self, job: QueuedJob) -> tuple[str, str, str]:
        return self.service, job.queue, self._known(job.func)

    def _known(self, func: str) -> str:
        if func not in self._functions:
            if len(self._functions) >= _MOST_FUNCTIONS:
                return _OTHER
            self._functions.add(func)
        return func

    # --- scrapes ---------------------------------------------------------------------

    async def gauges(self, chancy: Chancy) -> list[Metric]:
        """Returns the current values, of the process and of the database."""
        depths = await self._current_depths(chancy)
        now = time.monotonic()
        alive = [
            worker
            for worker in chancy.workers
            if now - worker.last_heartbeat < worker.heartbeat_timeout
        ]
        executors = [
            each for worker in chancy.workers for each in worker.executors.items()
        ]
        return [
            self._gauge(
                "chancy_workers",
                "Workers of this process whose heartbeat is recent.",
                len(alive),
            ),
            self._gauge(
                "chancy_leader",
                "1 if a worker of this process is the leader.",
                any(worker.is_leader.is_set() for worker in alive),
            ),
            self._gauge(
                "chancy_failing_tasks",
                "Tasks of this process that do not work; /health/ready names them.",
                len(chancy.monitor.failing),
            ),
            self._gauge_by_queue(
                "chancy_jobs_running",
                "Jobs that run in this process.",
                [(queue, len(each.get_running_jobs())) for queue, each in executors],
            ),
            self._gauge_by_queue(
                "chancy_queue_concurrency",
                "How many jobs of the queue this process runs at once.",
                [(queue, each.concurrency) for queue, each in executors],
            ),
            self._gauge(
                "chancy_database_up",
                "1 if the database answered this process.",
                depths is not None,
            ),
            self._gauge_by_queue(
                "chancy_queue_depth",
                f"Jobs that could run now, up to {MOST}; the same in each process.",
                [(each.queue, each.due) for each in depths or ()],
            ),
            self._gauge_by_queue(
                "chancy_queue_scheduled",
                "Jobs that wait for a later time or for their next attempt, up to "
                f"{MOST}; the same in each process.",
                [(each.queue, each.scheduled) for each in depths or ()],
            ),
            self._gauge_by_queue(
                "chancy_queue_oldest_seconds",
                "Time for which the oldest of the jobs that could run now has been due; the "
                "same in each process.",
                [(each.queue, each.oldest) for each in depths or ()],
            ),
        ]

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        gauge = GaugeMetricFamily(name, text, labels=["service"])
        gauge.add_metric([self.service], value)
        return gauge

    def _gauge_by_queue(
        self, name: str, text: str, values: Iterable[tuple[str, float]]
    ) -> Metric:
        """Returns a gauge with the sum of the values of each queue."""
        sums: dict[str, float] = {}
        for queue, value in values:
            sums[queue] = sums.get(queue, 0) + value
        gauge = GaugeMetricFamily(name, text, labels=["service", "queue"])
        for queue, value in sums.items():
            gauge.add_metric([self.service, queue], value)
        return gauge

    async def _current_depths(self, chancy: Chancy) -> Sequence[Depth] | None:
        """Returns the depths of the queues; scrapes at about the same time share a query.

        Returns:
            None while the database does not answer in time.
        """
        if chancy.monitor.database_is_lost:
            return None
        if time.monotonic() > self._read_at + _FRESH:
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read_depths(chancy))
            # A late query is not cancelled: the next scrape can use its answer.
            await asyncio.wait([self._reading], timeout=_PATIENCE)
        return self._depths

    async def _read_depths(self, chancy: Chancy) -> None:
        self._depths = None
        with suppress(psycopg.Error, WorkersError):
            async with autocommit(chancy.pool) as connection:
                self._depths = await read_depths(connection, chancy.prefix) or ()
        self._read_at = time.monotonic()


async def exposition(
    chancys: Iterable[Chancy], accepted: str, *, with_process: bool
) -> tuple[bytes, str]:
    """Returns the answer to a scrape, and its content type.

    Args:
        accepted: The header `Accept` of the scrape.
        with_process: Whether the answer includes prometheus_client's default registry.

    Raises:
        WorkersError: A Chancy has no PrometheusPlugin.
    """
    sources: list[Iterable[Metric]] = []
    for chancy in chancys:
        plugin = _plugin_of(chancy)
        sources += [plugin.registry.collect(), await plugin.gauges(chancy)]
    if with_process:
        sources.append(REGISTRY.collect())
    encode, content_type = choose_encoder(accepted)
    registry = CollectorRegistry()
    registry.register(_Together(sources))
    # With many functions this takes too long for the event loop.
    return await asyncio.to_thread(encode, registry), content_type


def _plugin_of(chancy: Chancy) -> PrometheusPlugin:
    for plugin in chancy.plugins.values():
        if isinstance(plugin, PrometheusPlugin):
            return plugin
    raise WorkersError(
        f"there are no metrics: add PrometheusPlugin(service=…) to the plugins in "
        f"{chancy.package}"
    )


class _Together(Collector):
    """The metrics of several services, merged: the format allows each name only once."""

    def __init__(self, sources: Iterable[Iterable[Metric]]) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        metrics: dict[str, Metric] = {}
        for metric in chain.from_iterable(self._sources):
            if metric.name in metrics:
                metrics[metric.name].samples += metric.samples
            else:
                metrics[metric.name] = metric
        return metrics.values()
