"""Measures the rendered workers beside plain Chancy and three other queues.

    uv run python benchmarks/runtime.py [--quick] [--only drain,bulk,latency,idle,http]

Without --only, those parts run. The following take long, and run only if they are named:

    depth       drain while 5,000 to 1,000,000 jobs wait (--depths); a job is pushed for each that ran
    load        push to start while 100 to 3,000 jobs a second are pushed (--loads)
    elsewhere   push to start while as many jobs as the largest depth wait in another queue
    held        drain while another session holds a transaction open (--hold, in seconds)
    fsync       drain and bulk push with fsync on, beside the parts above with it off
    processes   drain with 1, 2, 4 and 8 worker processes

With --plots FOLDER, depth and load also write an SVG there (uv run --with matplotlib …).
--who rendered,pgqueuer measures only these two. With --previous COMMIT, the service and the library
of that commit take part. The result is a Markdown table. The benchmark starts one PostgreSQL, and
each contestant has its own database in it. They take turns, so that a slow minute of the machine
affects all of them. The other queues are installed from their packages, each into its own
environment, in a temporary folder that is kept for the next run.
"""

import argparse
import contextlib
import http.client
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "runtime/tests")]
import plots  # noqa: E402

from harness.servers import Cluster, cluster, free_port  # noqa: E402
from tests.support import copy, environment, query, wait_for  # noqa: E402

HERE = Path(__file__).parent
CONTESTANTS = HERE / "contestants"
PEERS = Path(tempfile.gettempdir()) / "chancy-workers-peers"
SERVER = (
    "fsync = off",
    "synchronous_commit = on",
    "shared_buffers = 256MB",
    "max_connections = 200",
    # Once an hour, because a vacuum would slow one contestant and not the others.
    "autovacuum_naptime = 1h",
)
OURS, PLAIN, PREVIOUS = "rendered", "plain Chancy", "previous release"
JOBS = 5000
BULK_SECONDS = 3
TIMEOUT = 120


@dataclass(frozen=True, kw_only=True)
class System:
    """A queue: how it is installed, how jobs are pushed, and how to see that they are done.

    Args:
        folder: The folder in which its commands run and find its jobs.
        bin: The folder of its environment's commands.
        install: The command that creates its tables; {url} is the database.
        insert: Inserts `count` jobs in one transaction, like its own bulk push.
        func: The name of a job in a row.
        unfinished: The SQL condition for jobs that are not done.
        table: The table of its jobs.
        documented: The command of its worker in its documentation.
        best: The same command with the setting that drained fastest here.
        bulk: The command of its own bulk push.
        jobs: How many jobs to drain; fewer if it is slow, since the figure is a rate.
    """

    name: str
    folder: Path
    bin: Path
    install: Sequence[str]
    insert: str
    func: str
    table: str
    unfinished: str
    documented: Sequence[str]
    best: Sequence[str]
    bulk: Sequence[str]
    best_folder: Path | None = None
    jobs: int = JOBS
    variables: dict[str, str] = field(default_factory=dict)


_CHANCY_INSERT = """
WITH added AS (
    INSERT INTO billing_jobs (id, queue, func, kwargs)
    SELECT (lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1e6)::bigint), 16, '0')
        || lpad(to_hex(n), 16, '0'))::uuid, 'default', %(func)s, %(args)s::json
    FROM generate_series(1, %(count)s) AS n
)
SELECT pg_notify('billing_events', '{"t": "queue.pushed", "q": "default"}')
"""


def systems(folder: Path, previous: str | None) -> list[System]:
    """Renders ours and installs the others; skips those that cannot be installed."""
    python = Path(sys.executable)
    bulk = str(CONTESTANTS / "bulk.py")
    chancy: dict[str, Any] = {
        "bin": python.parent,
        "insert": _CHANCY_INSERT,
        "table": "billing_jobs",
        "unfinished": "state <> 'succeeded'",
    }
    found = [
        System(
            name=OURS,
            folder=render(folder / "rendered"),
            best_folder=render(folder / "rendered-best", concurrency=1000),
            install=[str(python), "-m", "app.billing.workers", "migrate"],
            func="app.billing.workers.{job}.worker.{job}",
            documented=[str(python), str(CONTESTANTS / "rendered.py")],
            best=[str(python), str(CONTESTANTS / "rendered.py"), *uvloop()],
            bulk=[str(python), bulk, "rendered"],
            **chancy,
        ),
        System(
            name=PLAIN,
            folder=CONTESTANTS,
            install=[str(python), "plain_chancy.py", "install", "{url}"],
            func="plain_chancy.{job}",
            documented=[str(python), "plain_chancy.py", "work", "{url}", "100"],
            best=[str(python), "plain_chancy.py", "work", "{url}", "500"],
            bulk=[str(python), bulk, "plain"],
            **chancy,
        ),
    ]
    if previous and (older := previous_release(previous, found[0], folder)):
        found.append(older)
    if bin := installed("pgqueuer", "pgqueuer[asyncpg]"):
        found.append(
            System(
                name="pgqueuer",
                folder=CONTESTANTS,
                bin=bin,
                install=["pgq", "--pg-dsn", "{url}", "install"],
                insert="INSERT INTO pgqueuer (priority, entrypoint, payload, status) SELECT "
                "0, %(func)s, %(sent)s::text::bytea, 'queued' "
                "FROM generate_series(1, %(count)s)",
                func="{job}",
                table="pgqueuer",
                unfinished="true",
                documented=["python", "pgqueuer_.py", "10"],
                best=["python", "pgqueuer_.py", "200"],
                bulk=["python", bulk, "pgqueuer"],
            )
        )
    if bin := installed("procrastinate", "procrastinate", "psycopg[binary,pool]"):
        app = ["procrastinate", "--app", "procrastinate_.app"]
        found.append(
            System(
                name="procrastinate",
                folder=CONTESTANTS,
                bin=bin,
                install=[*app, "schema", "--apply"],
                insert="INSERT INTO procrastinate_jobs (queue_name, task_name, args) "
                "SELECT 'default', %(func)s, %(args)s::jsonb "
                "FROM generate_series(1, %(count)s)",
                func="{job}",
                table="procrastinate_jobs",
                unfinished="status <> 'succeeded'",
                documented=[*app, "worker"],
                best=[*app, "worker", "--concurrency", "20"],
                bulk=["python", bulk, "procrastinate"],
                jobs=JOBS // 20,
                variables={"POOL": "20"},
            )
        )
    if bin := installed("oban", "oban", "psycopg[binary,pool]", python=">=3.12"):
        start = (
            "oban start --dsn {url} --log-level warning --cron-modules oban_ --queues"
        )
        found.append(
            System(
                name="oban",
                folder=CONTESTANTS,
                bin=bin,
                install=["oban", "install", "--dsn", "{url}"],
                insert="WITH added AS (INSERT INTO oban_jobs (queue, worker, args) SELECT "
                "'default', %(func)s, %(args)s::jsonb FROM generate_series(1, %(count)s)) "
                """SELECT pg_notify('public.oban_insert', '{"queue":"default"}')""",
                func="oban_.{Job}",
                table="oban_jobs",
                unfinished="state <> 'completed'",
                documented=[*start.split(), "default:10"],
                best=[*start.split(), "default:200"],
                bulk=["python", bulk, "oban"],
            )
        )
    return found


def previous_release(commit: str, ours: System, folder: Path) -> System | None:
    """Returns the service and the library of an older commit, or None without them."""
    library = f"git+file://localhost{ROOT}@{commit}#subdirectory=runtime"
    packages = [f"chancy-runtime[fastapi,sentry] @ {library}", "psycopg[binary]"]
    bin = installed(f"previous-{commit}", *packages, python=sys.executable)

    def moved(command: Sequence[str]) -> list[str]:
        return ["python" if word == sys.executable else word for word in command]

    return bin and replace(
        ours,
        name=PREVIOUS,
        bin=bin,
        folder=render(folder / "previous", commit=commit),
        best_folder=render(folder / "previous-best", concurrency=1000, commit=commit),
        install=moved(ours.install),
        documented=moved(ours.documented),
        best=moved(ours.best),
        bulk=moved(ours.bulk),
    )


def render(
    folder: Path, concurrency: int | None = None, commit: str | None = None
) -> Path:
    """Renders a backend with the default answers; writes its jobs.

    Args:
        concurrency: Of the queue, if it is not the default.
        commit: The commit of an older template, if it is not the working tree.
    """
    answers = ["scope=backend", "jobs=[noop, probe, rest, tick]"]
    if concurrency:
        answers.append(f"queues=[{{name: default, concurrency: {concurrency}}}]")
    arguments = [part for answer in answers for part in ("-d", answer)]
    if commit:
        older = f"--vcs-ref={commit}"
        copy(folder, *arguments, older, cwd=folder.parent, template=str(ROOT))
    else:
        copy(folder, *arguments, cwd=folder.parent)
    text = (CONTESTANTS / "plain_chancy.py").read_text()
    imports = (
        "import asyncio\nimport itertools\nimport time\n\nfrom chancy import job\n"
    )
    jobs = text[text.index("@job") : text.index("def create_chancy")]
    for name in ("noop", "probe", "rest", "tick"):
        path = folder / f"app/billing/workers/{name}/worker.py"
        path.write_text(f"{imports}\n\n{jobs}")
    return folder


def installed(name: str, *packages: str, python: str = ">=3.11") -> Path | None:
    """Returns the commands of an environment with the packages, which is kept."""
    home = PEERS / name
    if not (home / "complete").exists():
        shutil.rmtree(home, ignore_errors=True)
        pythons = sorted(Path.home().glob(".pyenv/versions/3.1[2-9]*/bin"))
        path = os.pathsep.join([os.environ["PATH"], *map(str, pythons)])
        make = ["uv", "venv", "--quiet", "--no-python-downloads"]
        fill = ["uv", "pip", "install", "--quiet", "--python", str(home / "bin/python")]
        steps = ([*make, "--python", python, str(home)], [*fill, *packages])
        variables = {**os.environ, "PATH": path}
        if any(subprocess.run(step, env=variables).returncode for step in steps):
            print(f"{name} cannot be installed here and is skipped", file=sys.stderr)
            return None
        (home / "complete").touch()
    return home / "bin"


def uvloop() -> list[str]:
    """Returns the folder of uvloop for this Python, if it can be installed."""
    bin = installed("uvloop", "uvloop", python=sys.executable)
    return [str(path) for path in bin.parent.glob("lib/*/site-packages")] if bin else []


class Database:
    """A system's tables, and its worker while one runs."""

    def __init__(self, server: Cluster, system: System, logs: Path) -> None:
        self.system = system
        self.name = system.name.lower().replace(" ", "_")
        query(server.url(), f"CREATE DATABASE {self.name}")
        self.url = server.url(self.name)
        self.log = logs / f"{self.name}.log"
        self._run(system.install, system.folder).wait(60)
        self.connection = psycopg.connect(self.url, autocommit=True)

    def _run(
        self, command: Sequence[str], folder: Path, stdout: int | None = None
    ) -> subprocess.Popen[bytes]:
        variables = {
            **self.system.variables,
            "DATABASE_URL": self.url,
            "PGDSN": self.url,
            "WORKERS_DATABASE_URL": self.url,
            "PYTHONPATH": str(CONTESTANTS),
            "PATH": f"{self.system.bin}{os.pathsep}{os.environ['PATH']}",
            "LOG_LEVEL": "WARNING",
        }
        parts = [part.format(url=self.url) for part in command]
        parts[0] = shutil.which(parts[0], path=variables["PATH"]) or parts[0]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                parts,
                cwd=folder,
                env=environment(**variables),
                stdin=subprocess.DEVNULL,
                stdout=stdout or log,
                stderr=log,
            )

    @contextmanager
    def worker(self, best: bool = False) -> Iterator[None]:
        """Runs a worker that has run some jobs and is idle."""
        self.clear()
        self.push("noop", count=100)
        with self.processes(1, best) as (process,):
            self.wait(lambda: process.poll() is None)
            self.clear()
            time.sleep(1)
            yield

    @contextmanager
    def processes(
        self, count: int, best: bool = False
    ) -> Iterator[list[subprocess.Popen[bytes]]]:
        """Starts `count` worker processes, and stops them at the end."""
        command = self.system.best if best else self.system.documented
        folder = (self.system.best_folder if best else None) or self.system.folder
        started = [self._run(command, folder) for _ in range(count)]
        try:
            yield started
        finally:
            for process in started:
                stop(process)

    def bulk(self, seconds: float, *arguments: str) -> float:
        """Returns the jobs per second of its own bulk push."""
        self.empty()
        command = [*self.system.bulk, str(seconds), *arguments]
        process = self._run(command, self.system.folder, subprocess.PIPE)
        output, _ = process.communicate(timeout=600)
        if process.returncode:
            raise SystemExit(f"{self.system.name}:\n{self.log.read_text()[-3000:]}")
        return float(output)

    def empty(self) -> None:
        """Deletes all jobs like clear(), but in a moment even with millions of rows."""
        self.connection.execute(f"TRUNCATE {self.system.table} CASCADE")

    def clear(self) -> None:
        self.connection.execute(f"DELETE FROM {self.system.table}")
        self.connection.execute(f"VACUUM ANALYZE {self.system.table}")

    def push(
        self,
        job: str,
        count: int = 1,
        *,
        connection: psycopg.Connection | None = None,
        elsewhere: bool = False,
    ) -> float:
        """Inserts jobs in one transaction; returns the time of its start.

        Args:
            elsewhere: Whether to push into a queue that no worker takes.
        """
        insert = self.system.insert
        if elsewhere:
            job = "elsewhere"
            insert = insert.replace("'default'", "'elsewhere'")
        sent = time.monotonic()
        parameters = {
            "func": self.system.func.format(job=job, Job=job.capitalize()),
            "args": f'{{"sent": {sent}}}' if job == "probe" else "{}",
            "sent": str(sent),
            "count": count,
        }
        (connection or self.connection).execute(insert, parameters)
        return sent

    def wait(self, alive: Callable[[], bool] = lambda: True) -> None:
        """Waits until all jobs are done."""
        unfinished = (
            f"SELECT FROM {self.system.table} WHERE {self.system.unfinished} LIMIT 1"
        )
        deadline = time.monotonic() + TIMEOUT
        while self.connection.execute(unfinished).rowcount:
            if time.monotonic() > deadline or not alive():
                raise SystemExit(f"{self.system.name}:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.02)

    @property
    def ticks(self) -> int:
        """How many jobs named tick have run, according to the log."""
        return 100 * self.log.read_text().count("tick\n")

    @property
    def latencies(self) -> list[float]:
        """The times that the probes have printed, in milliseconds."""
        lines = self.log.read_text().splitlines()
        return [1000 * float(line.split()[1]) for line in lines if line[:5] == "probe"]


def stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def shuffled(items: Sequence[Any]) -> list[Any]:
    return random.sample(list(items), len(items))


class Report:
    """Rows of a Markdown table; a ratio is that of two medians."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, ...]] = []

    def row(self, what: str, who: str, figures: Sequence[float], digits: int) -> float:
        """Adds a median with its spread; returns the median."""
        middle = statistics.median(figures)
        spread = (
            f"{min(figures):,.{digits}f}–{max(figures):,.{digits}f}"
            if len(figures) > 1
            else ""
        )
        self.rows.append((what, who, f"{middle:,.{digits}f}", spread, ""))
        # If a long run is interrupted, its results so far are visible.
        print(*self.rows[-1], sep=" | ", file=sys.stderr, flush=True)
        return middle

    def ratio(self, what: str, who: str, value: float, *, wanted: str = "") -> None:
        verdict = ""
        if wanted:
            limit = float(wanted.split()[1])
            held = value >= limit if wanted[0] == "≥" else value <= limit
            verdict = f"{wanted}: {'held' if held else 'missed'}"
        self.rows.append((what, who, f"**{value:.2f}**", "", verdict))

    def print(self) -> None:
        print(
            "| what | who | median | spread | wanted |\n| --- | --- | --- | --- | --- |"
        )
        for row in self.rows:
            print(f"| {' | '.join(row)} |")


def best_peer(medians: dict[str, float], choose: Callable[..., str]) -> str:
    """Returns the name of the best of those that are not Chancy."""
    peers = {
        name: value
        for name, value in medians.items()
        if name not in (OURS, PLAIN, PREVIOUS)
    }
    return choose(peers, key=lambda name: peers[name])


def measure_drain(
    databases: list[Database], report: Report, rounds: int, note: str = ""
) -> None:
    """Measures jobs per second from the push of a backlog to its last saved result."""
    rates: dict[tuple[str, bool], list[float]] = {}
    turns = [(database, best) for database in databases for best in (False, True)]
    for _ in range(rounds):
        for database, best in shuffled(turns):
            with database.worker(best):
                database.push("noop", count=database.system.jobs)
                since = time.monotonic()
                database.wait()
                rate = database.system.jobs / (time.monotonic() - since)
            rates.setdefault((database.system.name, best), []).append(rate)
    for best, what in ((False, "drain, jobs/s"), (True, "drain at best, jobs/s")):
        what += note
        medians = {
            database.system.name: report.row(
                what, database.system.name, rates[database.system.name, best], 0
            )
            for database in databases
        }
        plain, peer = ("", "≥ 1.0") if best else ("≥ 0.95", "≥ 1.0")
        against(report, what, medians, plain=plain, previous="≥ 0.97", peer=peer)


def measure_bulk(
    databases: list[Database], report: Report, rounds: int, note: str = ""
) -> None:
    """Measures jobs per second of each bulk push, with 1,000 jobs in a transaction."""
    rates: dict[tuple[str, str], list[float]] = {}
    turns = [(each, "") for each in databases]
    turns += [(each, "keys") for each in databases if each.system.name in (OURS, PLAIN)]
    for _ in range(rounds):
        for database, keys in shuffled(turns):
            rate = database.bulk(BULK_SECONDS, *keys.split())
            rates.setdefault((database.system.name, keys), []).append(rate)
    for keys, what in (("", "bulk push"), ("keys", "bulk push, unique keys")):
        what = f"{what}, jobs/s{note}"
        medians = {
            database.system.name: report.row(
                what, database.system.name, rates[database.system.name, keys], 0
            )
            for database, kind in turns
            if kind == keys
        }
        against(report, what, medians, plain="≥ 8" if not keys else "", peer="≥ 1.0")


def against(
    report: Report,
    what: str,
    medians: dict[str, float],
    *,
    plain: str = "",
    previous: str = "",
    peer: str = "",
    peers: Sequence[str] = (),
) -> None:
    """Adds the ratios to plain Chancy, the previous release and the best peer.

    A contestant that did not take part is left out.

    Args:
        plain: The wanted ratio to plain Chancy, such as "≥ 8".
        previous: The wanted ratio to the previous release.
        peer: The wanted ratio to the best peer.
        peers: The names of the peers that count; without them, all peers.
    """
    if OURS not in medians:
        return
    if PLAIN in medians:
        ratio = medians[OURS] / medians[PLAIN]
        report.ratio(what, f"rendered ÷ {PLAIN}", ratio, wanted=plain)
    if PREVIOUS in medians:
        ratio = medians[OURS] / medians[PREVIOUS]
        report.ratio(what, f"rendered ÷ {PREVIOUS}", ratio, wanted=previous)
    others = {
        name: rate
        for name, rate in medians.items()
        if name != PREVIOUS and (not peers or name in peers)
    }
    if set(others) - {OURS, PLAIN}:
        best = best_peer(others, max)
        ratio = medians[OURS] / medians[best]
        report.ratio(what, f"rendered ÷ {best}", ratio, wanted=peer)


def steady_rate(
    database: Database,
    depth: int,
    completions: int,
    *,
    processes: int = 1,
    after: float = 0,
) -> float:
    """Returns jobs per second while `depth` jobs wait; each that ran is replaced.

    Args:
        completions: How many jobs are counted, after a tenth of that number as warm-up.
        processes: The number of worker processes.
        after: The minimum length of the warm-up, in seconds.
    """
    database.empty()
    database.push("tick", count=depth)
    database.connection.execute(f"VACUUM ANALYZE {database.system.table}")
    before = pushed = database.ticks
    with database.processes(processes) as started:
        began = time.monotonic()
        counted: tuple[float, int] | None = None
        while True:
            now, done = time.monotonic(), database.ticks
            if done > pushed:
                database.push("tick", count=done - pushed)
                pushed = done
            is_warm = done - before >= completions / 10 and now - began >= after
            if counted is None and is_warm:
                counted = now, done
            if counted and done - counted[1] >= completions:
                return (done - counted[1]) / (now - counted[0])
            if any(process.poll() is not None for process in started):
                raise SystemExit(
                    f"{database.system.name}:\n{database.log.read_text()[-3000:]}"
                )
            time.sleep(0.02)


def measure_depth(
    databases: list[Database],
    report: Report,
    rounds: int,
    depths: Sequence[int],
    completions: int,
) -> dict[str, plots.Points]:
    """Measures jobs per second at each depth; returns a line for each contestant."""
    rates: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for depth in depths:
            for database in shuffled(databases):
                rate = steady_rate(database, depth, completions)
                rates.setdefault((database.system.name, depth), []).append(rate)
                database.empty()
    lines: dict[str, plots.Points] = {}
    for depth in depths:
        what = f"drain with {depth:,} waiting, jobs/s"
        medians = {}
        for database in databases:
            name = database.system.name
            medians[name] = report.row(what, name, rates[name, depth], 0)
            lines.setdefault(name, []).append((depth, medians[name]))
        against(report, what, medians, peer="≥ 2.0" if depth == 200_000 else "")
    if OURS in lines:
        ratio = lines[OURS][-1][1] / lines[OURS][0][1]
        who = f"rendered, {depths[-1]:,} ÷ {depths[0]:,}"
        report.ratio("drain by depth", who, ratio, wanted="≥ 0.9")
    return lines


def measure_held(
    databases: list[Database], report: Report, seconds: float, completions: int
) -> None:
    """Measures jobs per second when a transaction has been open for some time."""
    medians = {}
    what = f"drain, a transaction open for {seconds:.0f} s, jobs/s"
    for database in shuffled(databases):
        with psycopg.connect(database.url) as holder:
            holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            holder.execute("SELECT 1")  # It takes a snapshot, and locks no table.
            rate = steady_rate(database, JOBS, completions, after=seconds)
        medians[database.system.name] = report.row(
            what, database.system.name, [rate], 0
        )
        database.empty()
    peers = ("oban", "procrastinate")
    against(report, what, medians, peer="≥ 1.5", peers=peers)


def measure_processes(
    databases: list[Database], report: Report, completions: int
) -> None:
    """Measures jobs per second with several worker processes."""
    for count in (1, 2, 4, 8):
        for database in shuffled(databases):
            # By then eight processes have started, which uses the processors too.
            rate = steady_rate(
                database, 4 * JOBS, 3 * completions, processes=count, after=8
            )
            report.row(
                f"drain, {count} processes, jobs/s", database.system.name, [rate], 0
            )
            database.empty()


def probed(database: Database, probes: int) -> list[float] | None:
    """Returns sorted milliseconds from push to start, or None if probes do not run."""
    before = len(database.latencies)
    for _ in range(probes):
        database.push("probe")
        time.sleep(random.uniform(0.01, 0.03))
    deadline = time.monotonic() + 20
    while len(database.latencies) < before + probes:
        if time.monotonic() > deadline:
            return None
        time.sleep(0.1)
    return sorted(database.latencies[before:])


def percentiles(
    report: Report, what: str, who: str, taken: list[float] | None
) -> float | None:
    """Adds p50, p95 and p99 of sorted figures; returns p99."""
    for percent in (50, 95, 99):
        label = f"{what}, p{percent} ms"
        if taken is None:
            report.rows.append((label, who, "too many for it", "", ""))
        else:
            report.row(label, who, [taken[int(percent / 100 * len(taken))]], 1)
    return taken and taken[int(0.99 * len(taken))]


def measure_load(
    databases: list[Database], report: Report, probes: int, loads: Sequence[int]
) -> dict[str, plots.Points]:
    """Measures milliseconds from push to start at each load."""
    lines: dict[str, plots.Points] = {}
    for load in loads:
        for database in shuffled(databases):
            with database.worker(), pushing(database, "noop", load, wait=False):
                taken = probed(database, probes)
            what = f"push to start at {load:,} jobs/s"
            p99 = percentiles(report, what, database.system.name, taken)
            if p99 is not None:
                lines.setdefault(database.system.name, []).append((load, p99))
            database.empty()
    return lines


def measure_elsewhere(
    databases: list[Database], report: Report, probes: int, depth: int
) -> None:
    """Measures milliseconds from push to start with jobs in another queue, and without."""
    for database in shuffled(databases):
        name = database.system.name
        tails = []
        for count in (0, depth):
            with database.worker():
                if count:
                    database.push("noop", count=count, elsewhere=True)
                    table = database.system.table
                    database.connection.execute(f"VACUUM ANALYZE {table}")
                what = f"push to start with {count:,} elsewhere"
                tails.append(percentiles(report, what, name, probed(database, probes)))
            database.empty()
        if None not in tails:
            ratio = tails[1] / tails[0]
            wanted = "≤ 1.2" if name == OURS else ""
            who = f"{name}, {depth:,} elsewhere ÷ none"
            report.ratio("push to start, p99", who, ratio, wanted=wanted)


def measure_latency(databases: list[Database], report: Report, probes: int) -> None:
    """Measures milliseconds from the start of a push to the first line of its job."""
    for number in range(probes + 10):
        for database in shuffled(databases):
            database.push("probe")
            time.sleep(random.uniform(0.01, 0.03))
        if number == 9:
            time.sleep(1)
            warm = {database.name: len(database.latencies) for database in databases}
    halves: dict[str, float] = {}
    for database in databases:
        wait_for_probes(database, warm[database.name] + probes)
        taken = sorted(database.latencies[-probes:])
        name, fifth = database.system.name, probes // 5
        spread = [
            statistics.median(database.latencies[-probes:][i : i + fifth])
            for i in range(0, probes, fifth)
        ]
        halves[name] = report.row("push to start, p50 ms", name, spread, 1)
        p99 = taken[int(0.99 * probes)]
        report.row("push to start, p99 ms", name, [p99], 1)
    ratio = halves[OURS] / halves[PLAIN]
    report.ratio("push to start, p50", f"rendered ÷ {PLAIN}", ratio, wanted="≤ 1.05")
    best = min(halves, key=lambda name: halves[name])
    ratio = halves[OURS] / halves[best]
    report.ratio("push to start, p50", f"rendered ÷ {best}", ratio, wanted="≤ 1.2")


def wait_for_probes(database: Database, count: int) -> None:
    wait_for(
        lambda: len(database.latencies) >= count,
        timeout=20,
        what=f"the last probe of {database.system.name}",
    )


def measure_idle(
    server: Cluster, databases: list[Database], report: Report, seconds: int
) -> None:
    """Measures the transactions and connections of workers without jobs."""
    for database in databases:
        database.connection.close()
    time.sleep(30)  # A start makes more transactions than an idle minute.
    counts = "SELECT datname, xact_commit FROM pg_stat_database"
    before = dict(query(server.url(), counts))
    time.sleep(seconds)
    after = dict(query(server.url(), counts))
    used = "SELECT datname, count(*) FROM pg_stat_activity GROUP BY 1"
    connections = dict(query(server.url(), used))
    rates, names = {}, {}
    for database in databases:
        name = database.system.name
        rate = (after[database.name] - before[database.name]) / seconds
        rates[name] = report.row("idle, transactions/s", name, [rate], 2)
        names[name] = report.row(
            "idle, connections", name, [connections[database.name]], 0
        )
        database.connection = psycopg.connect(database.url, autocommit=True)
    for what, figures in (("transactions/s", rates), ("connections", names)):
        for other in (PLAIN, PREVIOUS):
            if other in figures:
                ratio = figures[OURS] / figures[other]
                who = f"rendered ÷ {other}"
                report.ratio(f"idle, {what}", who, ratio, wanted="≤ 1.0")


@contextmanager
def uvicorn(database: Database, workers: str) -> Iterator[http.client.HTTPConnection]:
    """Runs a FastAPI app on this database; yields a connection to it."""
    port = free_port()
    command = f"uvicorn http_app:app --port {port} --log-level warning --no-access-log"
    os.environ["WORKERS"] = workers
    process = database._run(
        [sys.executable, "-m", *command.split()], database.system.folder
    )
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)

    def up() -> bool:
        with contextlib.suppress(OSError):
            request(connection)
            return True
        connection.close()
        return False

    try:
        wait_for(up, timeout=30, what="the start of uvicorn")
        yield connection
    finally:
        connection.close()
        stop(process)


def request(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", "/ping")
    connection.getresponse().read()


def measure_http(databases: list[Database], report: Report, rounds: int) -> None:
    """Measures milliseconds of a request while 200 jobs of 50 ms are pushed a second."""
    by_name = {database.system.name: database for database in databases}
    ours, plain = by_name[OURS], by_name[PLAIN]
    with ExitStack() as stack:
        cases: dict[str, tuple[http.client.HTTPConnection, Database | None]] = {
            "without workers": (
                stack.enter_context(uvicorn(ours, "none")),
                None,
            ),
            "rendered, idle": (stack.enter_context(uvicorn(ours, "rendered")), None),
            f"{PLAIN}, idle": (stack.enter_context(uvicorn(plain, "plain")), None),
        }
        cases["rendered, busy"] = (cases["rendered, idle"][0], ours)
        cases[f"{PLAIN}, busy"] = (cases[f"{PLAIN}, idle"][0], plain)
        halves: dict[str, list[float]] = {}
        tails: dict[str, list[float]] = {}
        for _ in range(rounds):
            for name, (connection, busy) in shuffled(list(cases.items())):
                connection.close()  # uvicorn would do so after 5 s without a request
                with pushing(busy, "rest", 200) if busy else contextlib.nullcontext():
                    request(connection)
                    taken = sorted(timed(connection) for _ in range(300))
                halves.setdefault(name, []).append(statistics.median(taken))
                tails.setdefault(name, []).append(taken[int(0.99 * len(taken))])
    medians = {
        name: report.row("HTTP, p50 ms", name, halves[name], 2) for name in cases
    }
    for name in cases:
        report.row("HTTP, p99 ms", name, tails[name], 2)
    busy = medians["rendered, busy"]
    for other, wanted in ((f"{PLAIN}, busy", "≤ 1.05"), ("without workers", "")):
        ratio = busy / medians[other]
        report.ratio("HTTP, p50", f"rendered, busy ÷ {other}", ratio, wanted=wanted)


def timed(connection: http.client.HTTPConnection) -> float:
    time.sleep(0.002)
    since = time.monotonic()
    request(connection)
    return 1000 * (time.monotonic() - since)


@contextmanager
def pushing(
    database: Database, job: str, rate: int, *, wait: bool = True
) -> Iterator[None]:
    """Pushes `rate` jobs a second in a thread, a tenth of them every 100 ms.

    Args:
        wait: Whether to wait at the end until all have run.
    """
    stopped = threading.Event()

    def push() -> None:
        with psycopg.connect(database.url, autocommit=True) as connection:
            due = time.monotonic()
            while not stopped.wait(max(0, due - time.monotonic())):
                database.push(job, count=max(1, rate // 10), connection=connection)
                due += 0.1

    thread = threading.Thread(target=push)
    thread.start()
    time.sleep(0.5)
    try:
        yield
    finally:
        stopped.set()
        thread.join()
        if wait:
            database.wait()


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.replace("_", "").split(",")]


def main() -> None:
    summary, _, details = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--only", default="drain,bulk,latency,idle,http")
    parser.add_argument(
        "--who", default="", help="names of contestants; all without it"
    )
    parser.add_argument("--previous", help="the commit of an older release")
    parser.add_argument("--depths", type=numbers, default="5000,50000,200000,1000000")
    parser.add_argument("--loads", type=numbers, default="100,300,1000,3000")
    parser.add_argument("--completions", type=int, default=2 * JOBS)
    parser.add_argument("--hold", type=float, default=300, help="seconds")
    parser.add_argument("--plots", type=Path, help="the folder of the SVG files")
    arguments = parser.parse_args()
    parts = arguments.only.split(",")
    who = arguments.who.split(",") if arguments.who else []
    rounds, probes, idle = (2, 50, 20) if arguments.quick else (5, 200, 60)
    few, completions = (1 if arguments.quick else 3), arguments.completions
    report = Report()
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as name,
        cluster(*SERVER) as server,
    ):
        folder = Path(name)
        databases = [
            Database(server, each, folder)
            for each in systems(folder, arguments.previous)
            if not who or each.name in who
        ]
        if "drain" in parts:
            measure_drain(databases, report, rounds)
        if "bulk" in parts:
            measure_bulk(databases, report, rounds)
        if "fsync" in parts:
            with server.setting("fsync", "on"):
                measure_drain(databases, report, rounds, ", fsync on")
                measure_bulk(databases, report, rounds, ", fsync on")
        if "depth" in parts:
            lines = measure_depth(databases, report, few, arguments.depths, completions)
            plot(arguments.plots, "depth.svg", "jobs waiting", "jobs/s", lines)
        if "load" in parts:
            lines = measure_load(databases, report, probes, arguments.loads)
            label = "push to start, p99, ms"
            plot(arguments.plots, "load.svg", "jobs pushed per second", label, lines)
        if "elsewhere" in parts:
            measure_elsewhere(databases, report, probes, max(arguments.depths))
        if "held" in parts:
            measure_held(databases, report, arguments.hold, completions)
        if "processes" in parts:
            measure_processes(databases, report, completions)
        if "latency" in parts or "idle" in parts:
            with ExitStack() as stack:
                for database in databases:
                    stack.enter_context(database.worker())
                if "latency" in parts:
                    measure_latency(databases, report, probes)
                if "idle" in parts:
                    measure_idle(server, databases, report, idle)
        if "http" in parts:
            measure_http(databases, report, rounds)
        for database in databases:
            database.connection.close()
    report.print()
    load, cores = os.getloadavg()[0], os.cpu_count()
    print(
        f"\n{rounds} rounds ({few} of depth) in {time.monotonic() - started:.0f} s on "
        f"{cores} cores, load {load:.1f}; PostgreSQL with {', '.join(SERVER[:3])}; Python "
        f"{sys.version.split()[0]}; pgqueuer and oban run on uvloop, like their own commands."
    )


def plot(
    folder: Path | None, name: str, x: str, y: str, lines: dict[str, plots.Points]
) -> None:
    if folder:
        plots.draw(folder / name, x, y, lines)


if __name__ == "__main__":
    main()
