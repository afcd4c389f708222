"""Mixed jobs for as long as --soak says, with a random fault every minute."""

import random
import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

from harness.commands import wait_for
from harness.databases import query
from harness.recorder import RECORDING_JOB, Recorder, make_tables, push, recorder
from harness.servers import Cluster, cluster, pgbouncer, proxy
from harness.services import Service

SETTINGS = "Settings(heartbeat_timeout=15, leader_lease=15, poll_interval=2)"
QUEUES = """[
    Queue("default", executor=Chancy.Executor.Async, eager_polling=True),
    Queue("threads", executor=Chancy.Executor.Threaded, concurrency=4, eager_polling=True),
    Queue("processes", executor=Chancy.Executor.Process, concurrency=2, eager_polling=True),
    Queue("deep", executor=Chancy.Executor.Async, concurrency=1),
]"""
# This number of jobs always waits in the deep queue; as many are scheduled in another one.
DEPTH = 500_000
FILL = """
INSERT INTO billing_jobs (id, queue, func, kwargs, created_at, scheduled_at)
SELECT (lpad(to_hex(n), 16, '0') || substr(md5(queue || n), 1, 16))::uuid, queue,
    'app.billing.workers.record.worker.record',
    json_build_object('note', queue || n, 'seconds', 0.5), now(), now() + later
FROM (VALUES (%s, %s::interval)) AS v (queue, later), generate_series(1, %s) AS n
"""
JOBS = '''

@job(queue="threads")
def record_thread(*, note: str = "", seconds: float = 0) -> None:
    """The same in a thread."""
    with open(os.environ["EXECUTIONS"], "a") as file:
        file.write(f"{note}\\n")
    time.sleep(seconds)


@job(queue="processes")
def record_process(*, note: str = "", seconds: float = 0) -> None:
    """The same in a process."""
    record_thread(note=note, seconds=seconds)


@job()
async def fail(*, note: str = "", seconds: float = 0) -> None:
    """Fails with a text that PostgreSQL cannot store."""
    raise RuntimeError("no \\0 luck \\ud800")


@job()
async def leave(*, note: str = "", seconds: float = 0) -> None:
    """Tries to end the process."""
    raise SystemExit(1)


@job()
async def block(*, note: str = "", seconds: float = 0) -> None:
    """Blocks the event loop."""
    time.sleep(4)
'''
TASKS_ROUTE = """

@app.get("/tasks")
async def show_tasks() -> dict[str, int]:
    import asyncio
    return {"tasks": len(asyncio.all_tasks())}
"""
SUCCEEDING = {
    "record": "default",
    "record_thread": "threads",
    "record_process": "processes",
}
FAILING = {"fail": "default", "leave": "default"}


class Fleet:
    """Three replicas: the first survives all faults, the others may be killed."""

    def __init__(self, backend: Recorder, url: str, stack: ExitStack) -> None:
        self.backend = backend
        self.url = url
        self.stack = stack
        self.replicas = [self.start() for _ in range(3)]
        self.killed = 0

    def start(self) -> Service:
        service: Service = self.stack.enter_context(self.backend.service(self.url))
        return service

    def replace(self, *, kill: bool) -> None:
        """Ends the second replica, cleanly or not, and starts another in its place."""
        replica = self.replicas.pop(1)
        if kill:
            self.killed += 1
            replica.process.kill()
            replica.process.wait()
        else:
            replica.process.terminate()
            assert replica.process.wait(60) is not None
        self.replicas.append(self.start())


def figures(service: Service) -> dict[str, int]:
    """The memory in MiB, descriptors, threads and asyncio tasks of a process."""
    folder = Path("/proc") / str(service.process.pid)
    status = (folder / "status").read_text()

    def number(name: str) -> int:
        found = re.search(rf"^{name}:\s+(\d+)", status, re.MULTILINE)
        assert found
        return int(found[1])

    return {
        "MiB": number("VmRSS") // 1024,
        "descriptors": len(list((folder / "fd").iterdir())),
        "threads": number("Threads"),
        "tasks": service.request("/tasks")["tasks"],
    }


def connections(server: Cluster) -> int:
    ((count,),) = query(
        server.url(),
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' "
        "AND pid <> pg_backend_pid()",
    )
    return int(count)


def is_ready(service: Service) -> bool:
    try:
        return bool(service.request("/health/ready")["status"] == "ready")
    except OSError:
        return False


@pytest.mark.soak
def test_nothing_is_lost_doubled_or_leaked(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    seconds = float(request.config.getoption("--soak")) * 60
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    backend = recorder(
        tmp_path / "backend",
        settings=SETTINGS,
        job=RECORDING_JOB.replace("import os\n", "import os\nimport time\n") + JOBS,
        QUEUES=QUEUES,
    )
    main = backend.folder / "app/billing/main.py"
    main.write_text(main.read_text() + TASKS_ROUTE)

    with ExitStack() as stack:
        server = stack.enter_context(cluster())
        pooler = stack.enter_context(
            pgbouncer(
                server,
                **{"pool_mode": "session", "default_pool_size": 60},
            )
        )
        between = stack.enter_context(proxy(pooler.port))
        make_tables(server.url())
        for queue, later in (("deep", timedelta()), ("default", timedelta(days=30))):
            query(server.url(), FILL, queue, later, DEPTH)
        url = f"postgresql://postgres@127.0.0.1:{between.port}/postgres"
        fleet = Fleet(backend, url, stack)
        survivor = fleet.replicas[0]

        def down(seconds: float, mode: str) -> None:
            server.stop(mode)
            time.sleep(seconds)
            server.start()

        def read_only() -> None:
            with server.read_only():
                time.sleep(5)

        def stall() -> None:
            between.stall()
            time.sleep(10)
            between.resume_new()

        def restart_pooler() -> None:
            pooler.stop()
            pooler.start()

        def pause() -> None:
            query(
                server.url(),
                "UPDATE billing_queues SET state = 'paused', "
                "resume_at = now() + interval '5 s' WHERE name = 'default'",
            )

        def bad_rows() -> None:
            query(
                server.url(),
                "INSERT INTO billing_jobs (id, queue, func, limits) VALUES "
                "(gen_random_uuid(), 'default', 'nothing.at.all', "
                """'[{"t": "unknown", "v": 1}]')""",
            )
            name = f"bad{chance.randrange(10**6)}"
            query(
                server.url(),
                "INSERT INTO billing_queues (name, executor, tags) "
                "VALUES (%s, 'no.such.Executor', '{.*}')",
                name,
            )
            time.sleep(15)
            query(server.url(), "DELETE FROM billing_queues WHERE name = %s", name)

        faults: dict[str, Callable[[], object]] = {
            "connections killed": server.kill_connections,
            "database restarted": lambda: down(0, "fast"),
            "database crashed, down for 10 s": lambda: down(10, "immediate"),
            "read-only for 5 s": read_only,
            "network stalled for 10 s": stall,
            "pooler restarted": restart_pooler,
            "replica killed": lambda: fleet.replace(kill=True),
            "replica deployed": lambda: fleet.replace(kill=False),
            "queue paused for 5 s": pause,
            "bad rows": bad_rows,
            "event loop blocked": lambda: push(
                server.url(), "block", func="app.billing.workers.record.worker.block"
            ),
        }
        for name, queue in SUCCEEDING.items():
            for number in range(50):
                job = f"app.billing.workers.record.worker.{name}"
                push(server.url(), f"warm{number}", func=job, queue=queue, seconds=0.2)
        pushed = Counter(dict.fromkeys(SUCCEEDING, 50))
        time.sleep(20)
        before, connected_before = figures(survivor), connections(server)
        started = time.monotonic()
        next_fault = started + 30
        number = 0
        print(f"\nseed {seed}, at the start: {before}, {connected_before} connections")
        while time.monotonic() - started < seconds:
            number += 1
            name = chance.choices([*SUCCEEDING, *FAILING], weights=[10, 3, 2, 1, 0.2])[
                0
            ]
            queue = {**SUCCEEDING, **FAILING}[name]
            push(
                server.url(),
                f"n{number}",
                func=f"app.billing.workers.record.worker.{name}",
                queue=queue,
                seconds=chance.choice([0, 0, 0, 0.1, 2]),
            )
            pushed[name] += 1
            if time.monotonic() > next_fault:
                fault = chance.choice(list(faults))
                print(f"{time.monotonic() - started:6.0f} s  {fault}", flush=True)
                faults[fault]()
                next_fault = time.monotonic() + 60
            time.sleep(0.1)

        def unfinished() -> int:
            ((count,),) = query(
                server.url(),
                "SELECT count(*) FROM billing_jobs WHERE queue <> 'deep' "
                "AND state NOT IN ('succeeded', 'failed') AND scheduled_at < now() + interval '1 day'",
            )
            return int(count)

        wait_for(lambda: unfinished() == 0, timeout=180, what="the end of all jobs")
        wait_for(lambda: all(map(is_ready, fleet.replicas)), what="readiness")
        rows = query(
            server.url(),
            "SELECT split_part(func, '.', 6), state, count(*) FROM billing_jobs "
            "WHERE func LIKE 'app.billing.workers.record.worker.%%' AND queue <> 'deep' "
            "AND scheduled_at < now() + interval '1 day' GROUP BY 1, 2",
        )
        deep = dict(
            query(
                server.url(),
                "SELECT state, count(*) FROM billing_jobs WHERE queue = 'deep' GROUP BY 1",
            )
        )
        outcomes = {(name, state): count for name, state, count in rows}
        time.sleep(20)
        after, connected_after = figures(survivor), connections(server)
        repeated = {
            note: times
            for note, times in backend.executions.items()
            if times > 1 and not note.startswith("warm")
        }
        print(
            f"at the end: {after}, {connected_after} connections, {outcomes}, {deep}, "
            f"{len(repeated)} executed again: {repeated}, {fleet.killed} replicas killed"
        )

        for name in SUCCEEDING:
            assert outcomes.get((name, "succeeded"), 0) == pushed[name]
            assert (name, "failed") not in outcomes
        for name in FAILING:
            assert outcomes.get((name, "failed"), 0) == pushed[name]
        assert deep.keys() <= {"pending", "running", "succeeded"}
        assert deep["succeeded"] >= seconds / 10
        assert sum(deep.values()) == DEPTH
        assert survivor.process.poll() is None
        assert after["tasks"] <= before["tasks"] + 3
        assert after["descriptors"] <= before["descriptors"] + 8
        assert after["threads"] <= before["threads"] + 4
        assert after["MiB"] <= before["MiB"] + 40
        # Three replicas, each with a pool at its largest size and a connection that listens.
        assert connected_after <= 3 * (10 + 1)
