"""Chancy for services that have to keep running; rendered workers import from here.

The names below are public, and so are the modules `web`, `dashboard`, `testing`, `cli` and `alembic`.
Every other module is internal and may change in any release.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from chancy import Job, Limit, Queue, QueuedJob, Reference, job

from chancy_runtime.app import Chancy
from chancy_runtime.declaring import declare_queues
from chancy_runtime.errors import WorkersError
from chancy_runtime.execution.executors import (
    AsyncExecutor,
    ProcessExecutor,
    ThreadedExecutor,
)
from chancy_runtime.plugins.cron import Cron, CronJob, schedule_cron_jobs
from chancy_runtime.plugins.dashboard_sessions import DashboardSessions
from chancy_runtime.plugins.leadership import Leadership
from chancy_runtime.plugins.maintenance import Pruner, Recovery
from chancy_runtime.plugins.trigger import Trigger
from chancy_runtime.postgres.migrations import migrate
from chancy_runtime.postgres.target import database_url, get_secret_value
from chancy_runtime.settings import Settings
from chancy_runtime.start import check_database, join_when_database_is_there
from chancy_runtime.version import VERSION as __version__
from chancy_runtime.version import missing_name, require_version
from chancy_runtime.worker import Worker, together

if TYPE_CHECKING:
    from chancy_runtime.plugins.opentelemetry import OpenTelemetryPlugin
    from chancy_runtime.plugins.prometheus import PrometheusPlugin
    from chancy_runtime.plugins.sentry import SentryPlugin
    from chancy_runtime.plugins.sentry_check_ins import SentryCheckIns
    from chancy_runtime.plugins.sentry_traces import SentryTraces

__all__ = [
    "AsyncExecutor",
    "Chancy",
    "Cron",
    "CronJob",
    "DashboardSessions",
    "Job",
    "Leadership",
    "Limit",
    "OpenTelemetryPlugin",
    "ProcessExecutor",
    "PrometheusPlugin",
    "Pruner",
    "Queue",
    "QueuedJob",
    "Recovery",
    "Reference",
    "SentryCheckIns",
    "SentryPlugin",
    "SentryTraces",
    "Settings",
    "ThreadedExecutor",
    "Trigger",
    "Worker",
    "WorkersError",
    "__version__",
    "check_database",
    "database_url",
    "declare_queues",
    "get_secret_value",
    "job",
    "join_when_database_is_there",
    "migrate",
    "require_version",
    "schedule_cron_jobs",
    "together",
]


if not TYPE_CHECKING:  # Hidden, so that type checkers report names that do not exist.
    # For each plugin: its module, the package that it imports, and the extra that has it.
    _EXTRAS = {
        "OpenTelemetryPlugin": ("opentelemetry", "opentelemetry-api", "opentelemetry"),
        "PrometheusPlugin": ("prometheus", "prometheus-client", "prometheus"),
        "SentryCheckIns": ("sentry_check_ins", "sentry-sdk", "sentry"),
        "SentryPlugin": ("sentry", "sentry-sdk", "sentry"),
        "SentryTraces": ("sentry_traces", "sentry-sdk", "sentry"),
    }

    def __getattr__(name: str) -> Any:
        if name in _EXTRAS:
            module, package, extra = _EXTRAS[name]
            try:
                found = import_module(f"{__name__}.plugins.{module}")
            except ImportError as error:
                raise ImportError(
                    f"{name} needs {package} ({error}): install "
                    f"chancy-runtime[{extra}], or remove the plugin"
                ) from error
            return getattr(found, name)
        if name.startswith("__") or find_spec(f"{__name__}.{name}"):
            raise AttributeError(name)  # Python then looks for a submodule.
        raise missing_name(name)
