"""The undocumented parts of Chancy and psycopg that the library uses."""

import ast
import asyncio
import functools
import inspect
import logging
import re
from pathlib import Path

import chancy
import psycopg
import pytest
from chancy import Queue, Worker
from chancy.migrate import Migrator
from chancy.plugins.cron import Cron
from chancy_runtime import compat
from psycopg_pool import AsyncConnectionPool

from harness.contract import found, uses
from harness.databases import query
from harness.recorder import make_tables
from harness.servers import free_port

SOURCE = Path(compat.__file__).parent
WORKER = "chancy.worker:Worker."
EXECUTOR = "chancy.executors.base:Executor."
PROCESS = "chancy.executors.process:ProcessExecutor."
# Names that Chancy could move without notice; only chancy_runtime.compat uses them.
PRIVATE = [
    f"{WORKER}_maintain_queue",
    f"{WORKER}_maintain_queues",
    f"{WORKER}_maintain_updates",
    f"{WORKER}_maintain_heartbeat",
    f"{WORKER}_maintain_notifications",
    f"{WORKER}_drain",
    f"{WORKER}_stop",
    f"{PROCESS}_create_pool",
    f"{PROCESS}_shutdown_blocking",
    f"{PROCESS}_stop_on_cancel",
    f"{PROCESS}_handle_timeout",
    "chancy.executors.asyncex:AsyncExecutor._stop_on_cancel",
    "chancy.executors.asyncex:AsyncExecutor._cancel_jobs",
    "chancy.plugins.cron:_next_run",
]
OF_AN_INSTANCE = {
    Worker: {
        "_queues": dict,
        "_executors": dict,
        "_accepting_updates": bool,
        "_pending_updates": list,
        "_outgoing_lock": asyncio.Lock,
        "_notifications_ready_event": asyncio.Event,
        "manager": chancy.utils.TaskManager,
        "queue_wake_events": dict,
        "shutdown_event": asyncio.Event,
        "is_leader": asyncio.Event,
        "heartbeat_poll_interval": int,
        "heartbeat_timeout": int,
        "shutdown_timeout": int,
        "hub": chancy.hub.Hub,
        "worker_id": str,
    },
    chancy.Chancy: {"plugins": dict, "dsn": str, "prefix": str, "log": logging.Logger},
    Cron: {"poll_interval": int, "wakeup_signal": asyncio.Event},
}
SIGNATURES = {
    f"{WORKER}__init__": "self, chancy, worker_id, heartbeat_poll_interval, "
    "heartbeat_timeout, queue_change_poll_interval, shutdown_timeout, tags, "
    "register_signal_handlers, backoff_initial, backoff_max, backoff_max_retries",
    f"{WORKER}start": "self",
    f"{WORKER}stop": "self, timeout",
    f"{WORKER}flush": "self",
    f"{WORKER}database_retry": "self, name",
    f"{WORKER}announce_worker": "self, conn",
    f"{WORKER}fetch_jobs": "self, queue, conn, up_to",
    f"{WORKER}queue_update": "self, update",
    f"{WORKER}_maintain_queue": "self, queue",
    "chancy.utils:TaskManager.add": "self, name, task",
    "chancy.utils:TaskManager.cancel": "self, name",
    "chancy.utils:TaskManager.cancel_all": "self",
    "chancy.retry:DatabaseRetry.wait": "self, error",
    "chancy.retry:DatabaseRetry.reset": "self",
    "chancy.hub:Hub.wait_for": "self, event, timeout",
    "chancy.hub:Hub.emit": "self, event, body",
    f"{EXECUTOR}get_function_and_kwargs": "job",
    f"{EXECUTOR}on_job_completed": "self, job, exc, result",
    "chancy.executors.asyncex:AsyncExecutor._job_wrapper": "self, job",
    "chancy.executors.thread:ThreadedExecutor.__init__": "self, worker, queue",
    f"{PROCESS}__init__": "self, worker, queue, maximum_jobs_per_worker, mp_context",
    f"{PROCESS}on_initialize_worker": "",
    f"{PROCESS}_handle_timeout": "self, execution_id, time_limit",
    f"{PROCESS}job_wrapper": "job, pids_for_job, pending_cancellations",
    "chancy.app:Chancy.get_all_queues": "self",
    "chancy.app:Chancy.declare_ex": "self, cursor, queue, upsert",
    "chancy.app:Chancy.notify": "self, cursor, event, payload",
    "chancy.app:Chancy.notify_many": "self, cursor, events",
    "chancy.plugin:Plugin.run": "self, worker, chancy",
    "chancy.plugin:Plugin.on_job_starting": "self, job, worker",
    "chancy.plugin:Plugin.on_job_completed": "self, worker, job, exc, result",
    "chancy.plugins.pruner:Pruner.prune": "self, chancy, cursor",
    "chancy.plugins.recovery:Recovery.recover": "worker, chancy, cursor",
    "chancy.app:Chancy.push_many_ex": "self, cursor, jobs",
    "chancy.app:Chancy.sync_push_many_ex": "self, cursor, jobs",
    "chancy.app:Chancy.sync_notify": "self, cursor, event, payload",
    "psycopg:AsyncConnection.wait": "self, gen, interval, timeout",
    "psycopg_pool:AsyncConnectionPool.drain": "self",
}
# A method that is overridden, or replaced in an instance, works only if Chancy calls it.
CALLS = {
    f"{WORKER}start": [
        *("_maintain_queues", "_maintain_updates", "_maintain_heartbeat"),
        *("_maintain_notifications", "manager", "add", "run", "on_worker_started"),
    ],
    f"{WORKER}__init__": ["_drain_result"],
    f"{WORKER}_maintain_queues": ["_maintain_queue", "manager", "get_all_queues"],
    f"{WORKER}_maintain_updates": ["flush", "database_retry"],
    f"{WORKER}_maintain_heartbeat": ["announce_worker", "database_retry"],
    f"{WORKER}_maintain_notifications": ["database_retry"],
    f"{WORKER}_drain": ["_queues", "queue_wake_events", "_executors", "cancel_all"],
    f"{WORKER}_stop": ["flush", "on_worker_stopped"],
    f"{EXECUTOR}prepare_job_for_execution": ["get_function_and_kwargs"],
    f"{EXECUTOR}on_job_starting": ["on_job_starting"],
    f"{EXECUTOR}on_job_completed": ["on_job_completed", "queue_update"],
    f"{EXECUTOR}__aexit__": ["_stop_on_cancel"],
    "chancy.executors.base:ConcurrentExecutor.stop": ["_shutdown_blocking"],
    f"{PROCESS}__init__": ["_mp_context", "_maximum_jobs_per_worker", "_create_pool"],
    f"{PROCESS}push": ["job_wrapper", "submit", "_handle_timeout"],
    "chancy.executors.asyncex:AsyncExecutor.push": ["on_job_starting", "_job_wrapper"],
    "chancy.executors.thread:ThreadedExecutor.push": [
        *("on_job_starting", "pool", "submit", "job_wrapper", "_on_job_completed"),
    ],
    "chancy.plugin:Plugin.sleep": ["wakeup_signal"],
    "chancy.plugins.recovery:Recovery.run": ["recover", "poll_interval"],
    # This method is replaced.
    "chancy.plugins.pruner:Pruner.run": [
        *("poll_interval", "sleep", "wait_for_leader", "prune", "notify", "cleanup"),
    ],
    "chancy.plugins.pruner:Pruner.prune": ["maximum_to_prune", "rule", "to_sql"],
    "chancy.plugins.cron:Cron.run": ["poll_interval"],
    **{
        f"chancy.app:Chancy.{name}": [f"{prefix}push_many_ex"]
        for prefix in ("", "sync_")
        for name in (f"{prefix}push", f"{prefix}push_many")
    },
}
# Names of events, and the functions that emit or receive them.
EVENTS = {
    "worker.announced": f"{WORKER}announce_worker",
    "queue.pushed": f"{WORKER}start",
    "job.recovered": f"{WORKER}start",
    "queue.declared": f"{WORKER}_maintain_queues",
}
COLUMNS = {
    "jobs": "id queue func kwargs limits meta state attempts max_attempts priority "
    "taken_by claim_id created_at started_at completed_at scheduled_at errors unique_key",
    "queues": "name state concurrency tags executor executor_options "
    "polling_interval rate_limit rate_limit_window resume_at eager_polling",
    "queue_rate_limits": "queue window_start count",
    "workers": "worker_id last_seen expires_at",
    "leader": "id worker_id expires_at",
    "cron": "unique_key job cron timezone next_run",
    "schema_version": "version_of version",
}


@pytest.mark.parametrize("path", PRIVATE)
def test_a_private_name_still_exists(path: str) -> None:
    assert callable(found(path))


def instance_of(kind: type) -> object:
    app = chancy.Chancy("postgresql://127.0.0.1/nothing")
    return app if kind is chancy.Chancy else Worker(app) if kind is Worker else Cron()


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, names in OF_AN_INSTANCE.items() for name in names],
)
def test_an_attribute_still_exists(kind: type, name: str) -> None:
    value = getattr(instance_of(kind), name, None)

    assert isinstance(value, OF_AN_INSTANCE[kind][name]), f"{kind.__name__}.{name}"


@pytest.mark.parametrize("path", SIGNATURES)
def test_arguments_have_not_changed(path: str) -> None:
    assert ", ".join(inspect.signature(found(path)).parameters) == SIGNATURES[path]


@pytest.mark.parametrize(
    ("path", "name"), [(path, name) for path, names in CALLS.items() for name in names]
)
def test_overridden_methods_are_called(path: str, name: str) -> None:
    assert name in uses(path), f"{path} no longer uses {name}"


@pytest.mark.parametrize("event", EVENTS)
def test_an_event_has_its_name(event: str) -> None:
    assert event in uses(EVENTS[event]), f"{EVENTS[event]} no longer names {event}"


def test_jobs_are_where_the_watchdog_looks() -> None:
    for path in ("base:ConcurrentExecutor", "asyncex:AsyncExecutor"):
        assert "jobs" in uses(f"chancy.executors.{path}.__init__")
        assert "jobs" in uses(f"chancy.executors.{path}.__len__")


def test_the_retry_has_its_tuple_of_errors() -> None:
    assert psycopg.OperationalError in found("chancy.retry:DatabaseRetry.errors")


def test_the_pool_is_made_at_its_first_use() -> None:
    pool = inspect.getattr_static(chancy.Chancy, "pool")
    assert isinstance(pool, functools.cached_property)


def test_a_queue_names_its_executor_as_before() -> None:
    executor = chancy.Chancy.Executor
    assert [executor.Async, executor.Threaded, executor.Process] == [
        "chancy.executors.asyncex.AsyncExecutor",
        "chancy.executors.thread.ThreadedExecutor",
        "chancy.executors.process.ProcessExecutor",
    ]
    assert Queue("name").rate_limit is None and Queue("name").tags == {".*"}


def test_the_migrator_has_its_names() -> None:
    migrator = Migrator("chancy", "chancy.migrations", prefix="p_")
    assert migrator.key == "chancy" and migrator.discover_all_migrations()


def test_the_tables_have_their_columns(database_url: str) -> None:
    make_tables(database_url)
    rows = query(
        database_url,
        "SELECT table_name, column_name FROM information_schema.columns "
        "WHERE table_schema = 'public'",
    )
    wanted = {
        (f"billing_{table}", column)
        for table, columns in COLUMNS.items()
        for column in columns.split()
    }

    assert wanted - set(rows) == set()


def test_the_pool_logs_its_name_and_the_error(caplog: pytest.LogCaptureFixture) -> None:
    async def fail_to_connect() -> None:
        url = f"postgresql://127.0.0.1:{free_port()}/nothing"
        async with AsyncConnectionPool(
            url, min_size=1, name="contract", open=False, reconnect_timeout=0.1
        ) as pool:
            with pytest.raises(psycopg.OperationalError):
                await pool.wait(timeout=2)

    with caplog.at_level(logging.WARNING, logger="psycopg.pool"):
        asyncio.run(fail_to_connect())

    args = [record.args for record in caplog.records if record.name == "psycopg.pool"]
    assert any(
        isinstance(each, tuple)
        and each[0] == "contract"
        and isinstance(each[1], psycopg.OperationalError)
        for each in args
    ), args


def test_the_pool_accepts_its_arguments() -> None:
    taken = inspect.signature(AsyncConnectionPool.__init__).parameters
    assert {
        *("connection_class", "min_size", "max_size", "name", "open", "check"),
        *("configure", "timeout", "reconnect_timeout"),
    } <= set(taken)


def private_names(module: Path) -> set[str]:
    """The private attributes that a module uses, and the private methods that it defines."""
    return {
        name
        for node in ast.walk(ast.parse(module.read_text()))
        for name in names_of(node)
        if name.startswith("_") and not name.startswith("__")
    }


def names_of(node: ast.AST) -> list[str]:
    match node:
        case ast.Attribute(attr=name):
            return [name]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
            return [name]
    return []


def test_each_private_name_of_compat_is_listed_here() -> None:
    listed = {re.split("[.:]", path)[-1] for path in PRIVATE}
    listed |= {name for names in OF_AN_INSTANCE.values() for name in names}
    listed |= {name for names in CALLS.values() for name in names}

    private = private_names(SOURCE / "compat.py")
    assert {"_maintain_heartbeat", "_drain", "_outgoing_lock"} <= private
    assert private - listed == set()


MODULES = [each for each in SOURCE.rglob("*.py") if each.name != "compat.py"]


@functools.cache
def defined_names() -> set[str]:
    """The names that the other modules of the library define or assign."""
    names = {"_current_frames", "_exit"}  # of sys and os
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text())):
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    names.add(node.name)
                case ast.Attribute(attr=name, ctx=ast.Store()):
                    names.add(name)
                case ast.Name(id=name, ctx=ast.Store()):
                    names.add(name)
    return names


@pytest.mark.parametrize(
    "module", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix()
)
def test_only_compat_has_private_names_of_others(module: Path) -> None:
    assert private_names(module) - defined_names() == set(), "add them to compat.py"
