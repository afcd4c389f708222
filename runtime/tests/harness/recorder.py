"""A service whose one job records each execution, and helpers for its tables."""

import asyncio
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from chancy_runtime import Chancy, Cron, Leadership, Pruner, Recovery, migrate

from harness.commands import environment, run, wait_for
from harness.databases import query
from harness.servers import Cluster, cluster
from harness.services import Service, service

# A backend as the template renders it with one job, `record`; tests/ compares the two.
EXAMPLE = Path(__file__).with_name("example")
RECORDING_JOB = (EXAMPLE / "app/billing/workers/record/worker.py").read_text()
APP = "app.billing.main:app"
INITIALIZATION = "chancy_initialization.py"
QUICK = "Settings(heartbeat_timeout=10, leader_lease=10, poll_interval=1)"
# A definition in one line, or a list over several.
DEFINITION = r"^{name}\b[^=\n]*= (\[\n.*?^\]|[^\n]*)$"


class Recorder:
    """A backend whose job `record` writes each execution to a file.

    Args:
        process: "api" or "own", where its workers run.
    """

    def __init__(self, folder: Path, process: str = "api") -> None:
        self.folder = folder
        self.process = process
        self.executions_file = folder / "executions.txt"
        self.executions_file.touch()

    @property
    def executions(self) -> Counter[str]:
        """How often each note was executed."""
        return Counter(self.executions_file.read_text().splitlines())

    @property
    def workers(self) -> Path:
        return self.folder / "app/billing/workers"

    def variables(self, url: str, **variables: str) -> dict[str, str]:
        return {
            "WORKERS_DATABASE_URL": url,
            "EXECUTIONS": str(self.executions_file),
            **variables,
        }

    def edit(self, module: str, old: str, new: str) -> None:
        """Changes a module of workers/, like a team would."""
        path = self.workers / module
        text = path.read_text()
        assert old in text, f"{old!r} is not in {module}:\n{text}"
        path.write_text(text.replace(old, new))

    def set(self, **constants: str) -> None:
        """Changes the values of constants of chancy_initialization.py."""
        path = self.workers / INITIALIZATION
        text = path.read_text()
        for name, value in constants.items():
            definition = re.compile(DEFINITION.format(name=name), re.M | re.S)
            found = definition.search(text)
            assert found, f"{name} is not in {path}"
            text = f"{text[: found.start()]}{name} = {value}{text[found.end() :]}"
        path.write_text(text)

    def add_import(self, line: str) -> None:
        """Adds an import to chancy_initialization.py."""
        first = "from contextlib import asynccontextmanager\n"
        self.edit(INITIALIZATION, first, f"{first}{line}\n")

    def add_plugin(self, call: str, import_line: str) -> None:
        """Adds a plugin to those of the service."""
        self.add_import(import_line)
        self.edit(INITIALIZATION, "            Cron(),", f"            Cron(), {call},")

    def copy(self, folder: Path) -> "Recorder":
        """A copy in another folder, without executions."""
        shutil.copytree(self.folder, folder)
        other = Recorder(folder, self.process)
        other.executions_file.write_text("")
        return other

    def version(self, folder: Path, **constants: str) -> "Recorder":
        """Another version of the backend, with other values of constants in
        chancy_initialization.py; versions in one folder share the file of executions."""
        other = self.copy(folder)
        other.executions_file = folder.parent / "executions.txt"
        other.executions_file.touch()
        other.set(**constants)
        return other

    @contextmanager
    def service(
        self,
        url: str,
        *options: str,
        wait: bool = True,
        variables: Mapping[str, str] = {},
    ) -> Iterator[Service]:
        """The backend's service under uvicorn, or its workers in their own process.

        Args:
            options: The options of the command `run`.
        """
        run = ("-m", "app.billing.workers", "run", "--port", "0", *options)
        with service(
            self.folder,
            APP,
            self.variables(url, **variables),
            wait=wait,
            run=run if self.process == "own" else (),
        ) as running:
            yield running

    def apart(self) -> "Recorder":
        """The same backend, with its workers in a process of their own."""
        other = Recorder(self.folder, "own")
        other.executions_file = self.executions_file
        return other

    def command(
        self, *arguments: str, url: str, check: bool = True, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """`python -m app.billing.workers` with arguments."""
        return run(
            *(sys.executable, "-m", "app.billing.workers", *arguments),
            cwd=self.folder,
            env=environment(WORKERS_DATABASE_URL=url, **variables),
            check=check,
        )


def recorder(
    folder: Path,
    *,
    settings: str = QUICK,
    job: str = RECORDING_JOB,
    cron: str | None = None,
    without_database: bool = False,
    **constants: str,
) -> Recorder:
    """A copy of the example with other answers.

    Args:
        job: The text of record/worker.py.
        cron: A cron expression by which the job also runs.
        without_database: Whether the service starts without its database.
        constants: Other values of constants in chancy_initialization.py, as code.
    """
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    backend = Recorder(folder)
    (backend.workers / "record/worker.py").write_text(job)
    if cron:
        constants["CRON_JOBS"] = f'[CronJob(job=record, cron="{cron}", timezone="UTC")]'
        backend.add_import("from .record.worker import record")
    if without_database:
        backend.add_import("from chancy_runtime import join_when_database_is_there")
        backend.edit(
            INITIALIZATION,
            "@asynccontextmanager\n",
            "@join_when_database_is_there\n@asynccontextmanager\n",
        )
    backend.set(SETTINGS=settings, **constants)
    return backend


def plain_chancy(url: str, **options: Any) -> Chancy:
    """The Chancy of the example, built without the example's code."""
    return Chancy(
        url,
        **{
            "prefix": "billing_",
            "no_default_plugins": True,
            "plugins": [Leadership(), Pruner(), Recovery(), Cron()],
            "package": "app.billing.workers",
            **options,
        },
    )


def make_tables(url: str) -> None:
    """Creates the tables of the example."""
    asyncio.run(migrate(plain_chancy(url)))


@contextmanager
def migrated_cluster(*settings: str) -> Iterator[Cluster]:
    """A running Cluster in which each new database has the tables of the example."""
    with cluster(*settings) as server:
        make_tables(server.url("template1"))
        yield server


def push(url: str, note: str, *, prefix: str = "billing_", **columns: object) -> str:
    """Inserts a job `record` like any client could; returns its id."""
    values = {
        "func": "app.billing.workers.record.worker.record",
        "queue": "default",
        **columns,
    }
    seconds = values.pop("seconds", 0)
    names = ", ".join(values)
    places = ", ".join(["%s"] * len(values))
    ((id,),) = query(
        url,
        f"INSERT INTO {prefix}jobs (id, kwargs, {names}) "
        f"VALUES (gen_random_uuid(), jsonb_build_object('note', %s::text, "
        f"'seconds', %s::float), {places}) RETURNING id::text",
        *(note, seconds, *values.values()),
    )
    query(
        url,
        "SELECT pg_notify(%s, json_build_object('t', 'queue.pushed', 'q', %s::text)::text)",
        *(f"{prefix}events", values["queue"]),
    )
    return str(id)


def push_many(url: str, count: int, queue: str, columns: str) -> None:
    """Pushes jobs `record` silently; columns are SQL over n for kwargs and priority."""
    query(
        url,
        "INSERT INTO billing_jobs (id, queue, func, kwargs, priority) "
        f"SELECT gen_random_uuid(), '{queue}', "
        f"'app.billing.workers.record.worker.record', {columns} "
        f"FROM generate_series(1, {count}) AS n",
    )


def states(url: str, prefix: str = "billing_") -> Counter[str]:
    """How many jobs are in each state."""
    return Counter(state for (state,) in query(url, f"SELECT state FROM {prefix}jobs"))


def row(url: str, id: str) -> tuple[object, ...]:
    """A job's state, its attempts, how many it may have, its worker and its errors."""
    ((*values,),) = query(
        url,
        "SELECT state, attempts, max_attempts, taken_by, errors FROM billing_jobs "
        "WHERE id = %s::uuid",
        id,
    )
    return tuple(values)


def wait_until_executed(backend: Recorder, *notes: str) -> None:
    wait_for(
        lambda: all(backend.executions[note] for note in notes),
        what=f"the start of {notes}",
    )


@contextmanager
def seconds_between(low: float, high: float) -> Iterator[None]:
    """Fails if the block takes less or more time."""
    since = time.monotonic()
    yield
    taken = time.monotonic() - since
    assert low <= taken <= high, f"it took {taken:.2f} s"
