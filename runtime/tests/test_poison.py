"""A bad job or row: the worker goes on, the row has the reason, no other job waits."""

import json
import os
import random
import signal
import time
import urllib.error
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from psycopg.types.json import Jsonb

from harness.commands import wait_for
from harness.databases import database, query
from harness.recorder import QUICK, Recorder, make_tables, push, recorder
from harness.sentry import sentry
from harness.services import Service

POISON = '''"""Jobs that misbehave."""

import asyncio
import os
import resource
import time

from chancy_runtime import QueuedJob, job


class Panic(BaseException):
    """Like the error of pyo3 for a panic in Rust, not an Exception."""


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Untravelled(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__("needs two")


def act(kind: str, job: QueuedJob) -> None:
    match kind:
        case "exit":
            raise SystemExit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case "cancelled":
            raise asyncio.CancelledError
        case "panic":
            raise Panic
        case "nul":
            raise ValueError("a NUL: \\0, said")
        case "surrogate":
            raise ValueError("half a character: \\ud800, said")
        case "huge":
            raise ValueError("x" * 20_000_000 + " the end")
        case "unprintable":
            raise Unprintable
        case "untravelled":
            raise Untravelled(1, 2)
        case "no JSON":
            circle: list[object] = []
            circle.append(circle)
            job.meta.update(object=object(), number=float("nan"), text="\\0\\ud800")
            job.meta[3] = {"a set", 1}
            job.meta["big"] = 10**5000
        case "circular":
            job.meta["self"] = job.meta
        case "block":
            time.sleep(4.5)
        case "block for long":
            record_sync(note=kind)
            with open(os.environ["EXECUTIONS"]) as file:
                if file.read().splitlines().count(kind) == 1:
                    time.sleep(30)
        case "die":
            os._exit(7)
        case "wait":
            record_sync(note=f"wait in {os.getpid()}")
            time.sleep(600)
        case "memory":
            bytearray(2**40)
        case "limit":
            resource.setrlimit(resource.RLIMIT_AS, (2**20, 2**20))
            bytearray(2**28)
        case "allocate":
            bytearray(2**28)
        case "neighbour":
            record_sync(note="neighbour")
            while not os.path.exists(os.environ["EXECUTIONS"] + ".go"):
                time.sleep(0.05)
        case "well":
            pass


async def misbehave(*, note: str, seconds: float = 0, job: QueuedJob) -> None:
    act(note, job)


def misbehave_sync(*, note: str, seconds: float = 0, job: QueuedJob) -> None:
    act(note, job)


@job(queue="default")
async def record(*, note: str = "cron", seconds: float = 0) -> None:
    """Records that it runs, and sleeps."""
    record_sync(note=note)
    await asyncio.sleep(seconds)


def record_sync(*, note: str, seconds: float = 0) -> None:
    with open(os.environ["EXECUTIONS"], "a") as file:
        file.write(f"{note}\\n")
    time.sleep(seconds)
'''
WORKER = "app.billing.workers.record.worker"
QUEUES = """[
    Queue("default", executor=Chancy.Executor.Async, eager_polling=True),
    Queue("thread", executor=Chancy.Executor.Threaded, concurrency=8, eager_polling=True),
    Queue("process", executor=Chancy.Executor.Process, concurrency=2, eager_polling=True),
]"""
FUNCTIONS = {
    "default": "misbehave",
    "thread": "misbehave_sync",
    "process": "misbehave_sync",
}
PROBES = {"default": "record", "thread": "record_sync", "process": "record_sync"}
# The text that the row of each bad job must have.
TEXTS = {
    "exit": "the job raised SystemExit",
    "interrupt": "the job raised KeyboardInterrupt",
    "cancelled": "CancelledError",
    "panic": "the job raised Panic",
    "nul": r"a NUL: \0, said",
    "surrogate": r"half a character: \ud800, said",
    "huge": "the end",
    "unprintable": "Unprintable",
    "untravelled": "Untravelled: needs two",
}
MISSING = {
    "no.such.module.job": "No module named 'no'",
    f"{WORKER}.missing": "Could not find function missing",
    "nodots": "ValueError",
    "app.billing.workers.record.exits.job": "the job raised SystemExit",
    WORKER: "TypeError",
}
MISFITS = {
    """'{"nonsense": 1}'""": "unexpected keyword argument 'nonsense'",
    "'{}'": "missing 1 required keyword-only argument",
    "'[1]'": "TypeError",
    """'"text"'""": "ValueError",
}


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    backend = recorder(
        tmp_path_factory.mktemp("poison") / "backend",
        settings=QUICK.replace(")", ", retry_wait=0)"),
        QUEUES=QUEUES,
        job=POISON,
    )
    exits = backend.folder / "app/billing/workers/record/exits.py"
    exits.write_text("raise SystemExit(1)\n")
    return backend


@pytest.fixture
def url(server_url: str) -> Iterator[str]:
    with database(server_url) as url:
        make_tables(url)
        yield url


def bad_job(url: str, kind: str, queue: str = "default", **columns: Any) -> str:
    """Pushes a job that misbehaves in this way."""
    func = f"{WORKER}.{FUNCTIONS[queue]}"
    return push(url, kind, func=func, queue=queue, **columns)


def insert(
    url: str, *, func: str = f"{WORKER}.record", queue: str = "default", **columns: str
) -> str:
    """Inserts a row whose other columns are SQL expressions; returns its id."""
    values = {"id": "gen_random_uuid()", "kwargs": """'{"note": "row"}'""", **columns}
    ((id,),) = query(
        url,
        f"INSERT INTO billing_jobs (func, queue, {', '.join(values)}) "
        f"VALUES (%s, %s, {', '.join(values.values())}) RETURNING id::text",
        *(func, queue),
    )
    return str(id)


def row(url: str, id: str) -> dict[str, Any]:
    """The row of a job."""
    ((state, errors, meta),) = query(
        url, "SELECT state, errors, meta FROM billing_jobs WHERE id = %s", id
    )
    return {"state": state, "errors": json.dumps(errors), "meta": meta}


def ended(url: str, id: str) -> dict[str, Any]:
    """The row of a job, once it has succeeded or failed."""

    def final() -> dict[str, Any] | None:
        found = row(url, id)
        return found if found["state"] in ("succeeded", "failed") else None

    return dict(wait_for(final, timeout=120, what=f"the end of the job {id}"))


def assert_goes_on(url: str, queue: str = "default", *, within: float = 20) -> None:
    """A job pushed now succeeds in time."""
    id = push(url, "probe", queue=queue, func=f"{WORKER}.{PROBES[queue]}")
    assert ended(url, id)["state"] == "succeeded", row(url, id)
    ((seconds,),) = query(
        url,
        "SELECT extract(epoch FROM completed_at - created_at)::float "
        "FROM billing_jobs WHERE id = %s",
        id,
    )
    assert seconds < within


@contextmanager
def up(
    backend: Recorder, url: str, variables: Mapping[str, str] = {}
) -> Iterator[Service]:
    """The service, once its executors have started."""
    with backend.service(url, variables=variables) as running:
        for queue in PROBES:
            assert_goes_on(url, queue, within=60)
        yield running


def problems(running: Service) -> list[str]:
    """The problems that /health/ready names."""
    try:
        running.request("/health/ready")
    except urllib.error.HTTPError as error:
        found: list[str] = json.load(error)["problems"]
        return found
    return []


@pytest.mark.parametrize("queue", ["default", "thread", "process"])
def test_a_bad_job_fails_alone_and_its_row_says_why(
    queue: str, backend: Recorder, url: str
) -> None:
    with up(backend, url) as running:
        texts = {bad_job(url, kind, queue): text for kind, text in TEXTS.items()}
        for func, text in MISSING.items():
            texts[push(url, "missing", func=func, queue=queue)] = text
        for kwargs, text in MISFITS.items():
            func = f"{WORKER}.{FUNCTIONS[queue]}"
            texts[insert(url, func=func, queue=queue, kwargs=kwargs)] = text
        well = {kind: bad_job(url, kind, queue) for kind in ("no JSON", "circular")}
        assert_goes_on(url)
        assert_goes_on(url, queue, within=60)

        for id, text in texts.items():
            found = ended(url, id)
            assert found["state"] == "failed"
            assert json.dumps(text)[1:-1] in found["errors"]
            assert len(found["errors"]) < 300_000
        for id in well.values():
            assert ended(url, id)["state"] == "succeeded"
        if queue != "process":  # A job in a child process has its own copy of meta.
            meta = row(url, well["no JSON"])["meta"]
            assert meta["number"] == "nan" and meta["text"] == r"\0\ud800"
        assert_goes_on(url)
        assert_goes_on(url, queue)
        assert problems(running) == []
        running.stop()


def test_a_job_that_blocks_the_event_loop_is_named(backend: Recorder, url: str) -> None:
    with (
        sentry() as (dsn, events),
        up(backend, url, {"SENTRY_DSN": dsn}) as running,
    ):
        id = bad_job(url, "block")
        beginning = f"{WORKER}.misbehave ({id}) blocks the event loop at "
        line = wait_for(
            lambda: [text for text in running.output.splitlines() if beginning in text],
            what="the report",
        )[0]
        assert ended(url, id)["state"] == "succeeded"
        assert_goes_on(url)
        assert problems(running) == []
        running.stop()

    assert "worker.py:" in line and "thread or process executor" in line
    (event,) = (each for each in events if id in json.dumps(each))
    assert event["tags"]["service"] == "billing"
    assert "the event loop turns again after" in running.output


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "executions"),
    [("Settings()", 1), (QUICK, 2)],
    ids=["within the heartbeat timeout", "for longer than it"],
)
def test_an_event_loop_that_is_blocked_for_half_a_minute(
    settings: str, executions: int, backend: Recorder, url: str, tmp_path: Path
) -> None:
    """The other replica goes on, and takes over the jobs after the heartbeat timeout."""
    version = backend.version(tmp_path / "version", SETTINGS=settings)
    with up(version, url) as blocked:
        jobs = {"sleeper": push(url, "sleeper", seconds=20)}
        jobs["block for long"] = bad_job(url, "block for long")
        wait_for(
            lambda: all(version.executions[note] for note in jobs),
            what="the start of the jobs",
        )
        with version.service(url) as other:
            assert_goes_on(url)
            deadline = time.monotonic() + 60
            while not turns_again(blocked, jobs["block for long"]):
                assert time.monotonic() < deadline, blocked.output
                assert_goes_on(url)
            for note, id in jobs.items():
                assert ended(url, id)["state"] == "succeeded"
                assert version.executions[note] == executions, note
            wait_for(lambda: problems(blocked) == [], what="the readiness")
            other.stop()
        blocked.stop()

    assert query(url, "SELECT DISTINCT state, attempts FROM billing_jobs") == [
        ("succeeded", 1)
    ]


def turns_again(running: Service, id: str) -> bool:
    """Whether the log has both that a job blocks the event loop and that this ended."""
    rest = running.output.partition(f"({id}) blocks the event loop at ")[2]
    return "the event loop turns again after" in rest


@pytest.mark.parametrize("queue", ["default", "thread"])
def test_a_job_that_ends_its_process_is_given_up(
    queue: str, backend: Recorder, url: str
) -> None:
    id = bad_job(url, "die", queue)
    deaths = 0
    for _ in range(4):
        with backend.service(url, wait=False) as running:
            assert running.process.wait(60) == 7, running.output
        deaths += 1
        # As if the heartbeat timeout had passed.
        query(url, "DELETE FROM billing_workers")

    with backend.service(url) as running:
        found = ended(url, id)
        assert found["state"] == "failed" and "given up" in found["errors"]
        assert "lost 4 times" in found["errors"]
        assert found["meta"]["rescues"] == 4
        assert_goes_on(url)
        assert f"{WORKER}.{FUNCTIONS[queue]} ({id}) is given up" in running.output
        running.stop()


def test_a_dead_or_starved_child_fails_only_its_job(
    backend: Recorder, url: str
) -> None:
    with up(backend, url) as running:
        neighbour = bad_job(url, "neighbour", "process")
        wait_for(lambda: backend.executions["neighbour"], what="the neighbour")
        little = Jsonb([{"t": "memory", "v": 2**20}])
        texts = {
            bad_job(url, "die", "process"): "terminated abruptly",
            bad_job(url, "memory", "process"): "MemoryError",
            bad_job(url, "limit", "process"): "MemoryError",
            bad_job(url, "memory", "process", limits=little): "",
        }
        assert_goes_on(url)
        for id, text in texts.items():
            found = ended(url, id)
            assert found["state"] == "failed" and text in found["errors"]
        for _ in range(3):  # The remaining children have enough memory.
            found = ended(url, bad_job(url, "allocate", "process"))
            assert found["state"] == "succeeded", found
        Path(f"{backend.executions_file}.go").touch()
        assert ended(url, neighbour)["state"] == "succeeded"
        running.stop()


def test_a_child_that_the_kernel_kills_for_its_memory_fails_only_its_job(
    backend: Recorder, url: str, tmp_path: Path
) -> None:
    """The kernel sends SIGKILL, whichever process allocated the memory."""
    own = backend.version(tmp_path / "version")
    with up(own, url) as running:
        neighbour = bad_job(url, "neighbour", "process")
        waiting = bad_job(url, "wait", "process")
        wait_for(
            lambda: own.executions["neighbour"] and waiting_in(own),
            what="both jobs",
        )
        os.kill(waiting_in(own)[0], signal.SIGKILL)
        found = ended(url, waiting)
        assert found["state"] == "failed" and "terminated abruptly" in found["errors"]
        assert_goes_on(url, "process")
        Path(f"{own.executions_file}.go").touch()
        assert ended(url, neighbour)["state"] == "succeeded"
        assert problems(running) == []
        running.stop()


def waiting_in(backend: Recorder) -> list[int]:
    """The processes of the jobs that wait."""
    return [
        int(note.split()[-1])
        for note in backend.executions
        if note.startswith("wait in ")
    ]


PLUGIN = '''import asyncio

from chancy.plugin import Plugin


class Hooks(Plugin):
    """A team's plugin that fails."""

    @staticmethod
    def get_identifier() -> str:
        return "hooks"

    async def on_job_starting(self, *, job, worker):
        if job.meta.get("starting") == "raises":
            raise RuntimeError("not today")
        if job.meta.get("starting") == "cancels":
            raise asyncio.CancelledError
        return None if job.meta.get("starting") else job

    async def on_job_completed(self, *, worker, job, exc=None, result=None):
        if job.meta.get("completed") == "raises":
            raise RuntimeError("not today")
        if job.meta.get("completed") == "cancels":
            raise asyncio.CancelledError
        return None if job.meta.get("completed") else job
'''


def test_a_hook_that_fails_leaves_no_job_running(tmp_path: Path, url: str) -> None:
    team = recorder(tmp_path / "backend", QUEUES=QUEUES, job=POISON)
    (team.workers / "hooks.py").write_text(PLUGIN)
    team.add_plugin("Hooks()", "from .hooks import Hooks")

    def with_meta(queue: str, **meta: str) -> str:
        return bad_job(url, "well", queue, meta=Jsonb(meta))

    expected: dict[str, tuple[str, str]] = {}
    with (
        sentry() as (dsn, events),
        up(team, url, {"SENTRY_DSN": dsn}) as running,
    ):
        for queue in FUNCTIONS:
            for how, text in (
                ("raises", "not today"),
                ("forgets", "return the job"),
                ("cancels", "that the hook awaited was cancelled"),
            ):
                expected[with_meta(queue, starting=how)] = ("failed", text)
                expected[with_meta(queue, completed=how)] = ("succeeded", "")
            bad = bad_job(url, "nul", queue, meta=Jsonb({"completed": "forgets"}))
            expected[bad] = ("failed", "a NUL")
        assert_goes_on(url)

        for id, (state, text) in expected.items():
            found = ended(url, id)
            assert found["state"] == state and text in found["errors"], found
        assert problems(running) == []
        running.stop()

    tags = [event["tags"].get("chancy.task") for event in events]
    assert tags.count("Hooks") == 12


UNREADABLE_ROWS: list[tuple[dict[str, str], str]] = [
    ({"limits": """'[{"t": "moon", "v": 1}]'"""}, "'moon' is not a valid"),
    ({"limits": """'[{"t": "time"}]'"""}, "KeyError: 'v'"),
    ({"limits": "'{\"a\": 1}'"}, "TypeError"),
    ({"limits": """'[{"t": "time", "v": "long"}]'"""}, "TypeError"),
    ({"limits": """'[{"t": "memory", "v": 5}]'"""}, "does not support memory limits"),
    ({"errors": "'5'"}, "errors is a int, not a list"),
    ({"meta": "'[1]'"}, "meta is a list, not a dict"),
    ({"kwargs": "'7'"}, "TypeError"),
    (
        {"kwargs": "jsonb_build_object('note', repeat('9', 5000)::numeric)"},
        "ValueError",
    ),
    # RecursionError, or ValueError from Python 3.13 on, whose json can go deeper.
    ({"kwargs": "(repeat('[', 2000) || repeat(']', 2000))::jsonb"}, "Error: "),
    ({"created_at": "'infinity'"}, "DataError"),
    ({"scheduled_at": "'-infinity'"}, "DataError"),
    ({"func": ""}, "ValueError"),
]


def test_a_row_that_cannot_be_read_fails_alone(backend: Recorder, url: str) -> None:
    stuck = {
        "state": "'running'",
        "taken_by": "'nobody'",
        "kwargs": """'{"note": "x"}'""",
    }
    metas = ("'7'", "'[]'", """'{"rescues": "abc"}'""", """'{"rescues": 1e300}'""")
    with up(backend, url) as running:
        texts = {insert(url, **columns): text for columns, text in UNREADABLE_ROWS}
        rescued = [insert(url, **stuck, meta=meta) for meta in metas]
        null = insert(url, kwargs="'null'", func="builtins.dict")
        empty = [
            insert(url, **{name: "'null'"}) for name in ("limits", "meta", "errors")
        ]
        assert_goes_on(url)
        assert_goes_on(url, "thread")

        for id, text in texts.items():
            found = ended(url, id)
            assert found["state"] == "failed" and text in found["errors"], found
        assert "no signature found" in ended(url, null)["errors"]
        # Recovery takes jobs with any meta; for a claim, null is an empty meta.
        for id in [*rescued, *empty]:
            assert ended(url, id)["state"] == "succeeded"
        assert_goes_on(url)
        assert problems(running) == []
        running.stop()


BAD_QUEUES: dict[str, tuple[dict[str, str], str]] = {
    "no module": ({"executor": "'no.such.Executor'"}, "No module named 'no'"),
    "no executor": ({"executor": "'os.getcwd'"}, "TypeError"),
    "odd options": ({"executor_options": """'{"bogus": 1}'"""}, "TypeError"),
    **{
        f"{most} jobs": (
            {
                "executor": "'chancy.executors.process.ProcessExecutor'",
                "executor_options": f"""'{{"maximum_jobs_per_worker": {most}}}'""",
            },
            "has the maximum_jobs_per_worker",
        )
        for most in ("0", '"5"')
    },
    "no window": ({"rate_limit": "5"}, "declare it with both"),
    "no limit": ({"rate_limit": "0", "rate_limit_window": "9"}, "declare it with both"),
    "past": ({"rate_limit": "1", "rate_limit_window": "-9"}, "declare it with both"),
    "none": ({"concurrency": "0"}, "has the concurrency 0"),
    "less": ({"concurrency": "-3"}, "has the concurrency -3"),
    "untagged": ({"tags": "NULL"}, "TypeError"),
    "bad tag": ({"tags": "'{[}'"}, "is not a pattern"),
    "moody": ({"state": "'moody'"}, "'moody' is not a valid"),
    "for ever": ({"state": "'paused'", "resume_at": "'infinity'"}, "DataError"),
}
GOOD_QUEUES: dict[str, dict[str, str]] = {
    "hasty": {"polling_interval": "0"},
    "timeless": {"polling_interval": "NULL"},
    "backwards": {"polling_interval": "-1"},
    "unbounded": {"concurrency": "NULL"},
    "plain": {"executor_options": "NULL"},
}


def insert_queue(url: str, name: str, columns: dict[str, str]) -> None:
    values = {
        "name": f"'{name}'",
        "executor": "'chancy.executors.asyncex.AsyncExecutor'",
        "concurrency": "5",
        "tags": "'{.*}'",
        "executor_options": "'{}'",
        **columns,
    }
    query(
        url,
        f"INSERT INTO billing_queues ({', '.join(values)}) "
        f"VALUES ({', '.join(values.values())})",
    )


def transactions(url: str) -> int:
    """The number of transactions in the database."""
    ((count,),) = query(
        url,
        "SELECT xact_commit::int FROM pg_stat_database WHERE datname = current_database()",
    )
    return int(count)


def test_a_bad_queue_is_named_and_holds_up_no_other(
    backend: Recorder, url: str
) -> None:
    insert_queue(url, "idle", {"tags": "'{}'"})
    for name, (columns, _) in BAD_QUEUES.items():
        insert_queue(url, name, columns)
    for name, columns in GOOD_QUEUES.items():
        insert_queue(url, name, columns)
    with up(backend, url) as running:  # The service starts in spite of these rows.
        jobs = {name: push(url, name, queue=name) for name in (*BAD_QUEUES, "idle")}
        assert_goes_on(url)
        assert_goes_on(url, "thread")
        for name in GOOD_QUEUES:
            assert ended(url, push(url, name, queue=name))["state"] == "succeeded"
        # A queue that polled without a pause would send hundreds of queries a second.
        before = transactions(url)
        time.sleep(3)
        assert transactions(url) - before < 300

        for name, (_, reason) in BAD_QUEUES.items():
            lines = [
                line
                for line in running.output.splitlines()
                if "ERROR" in line and reason in line and name.split()[-1] in line
            ]
            assert lines, (name, running.output)
        found = problems(running)
        for name in BAD_QUEUES:
            assert row(url, jobs[name])["state"] == "pending"
            assert any(name in problem for problem in found), (name, found)

        query(url, "DELETE FROM billing_queues WHERE name = ANY(%s)", list(BAD_QUEUES))
        wait_for(
            lambda: not any("row of the queue" in each for each in problems(running)),
            what="a queue row less to complain about",
        )
        running.stop()


# Values that the columns of jobs accept, as SQL; func and queue as plain text.
NASTY = {
    "kwargs": [
        *("'null'", "'7'", "'[[]]'", """'"x"'""", """'{"": 1}'"""),
        """'{"note": {"a": [null]}}'""",
        "jsonb_build_object('note', repeat('x', 300000))",
        "(repeat('[', 2000) || repeat(']', 2000))::jsonb",
        "to_jsonb(repeat('9', 5000)::numeric)",
    ],
    "func": [
        *("", ".", "a.", "..x", "x." * 5000, "é.\U0001f4a3", "os.path"),
        *("builtins.exit", "builtins.dict", "asyncio.sleep", f"{WORKER}.misbehave"),
        "app.billing.workers.record.exits.job",
    ],
    "limits": [
        *("'null'", "'{}'", "'[[]]'", "'[null]'", """'"t"'""", """'[{"t": 1}]'"""),
        """'[{"t": "time", "v": null}]'""",
        """'[{"t": "time", "v": -1}]'""",
        """'[{"t": "time", "v": 1e200}]'""",
        """'[{"t": "memory", "v": {}}]'""",
    ],
    "errors": ["'null'", "'{}'", """'"e"'""", "'[1]'", "'3'"],
    "meta": ["'null'", "'[]'", """'"m"'""", """'{"rescues": []}'"""],
    "queue": ["thread", "default", "default"],
    "priority": ["NULL", "2147483647", "-2147483648"],
    "max_attempts": ["1", "2", "3"],
    "created_at": ["'infinity'", "'-infinity'", "'0044-03-15 BC'"],
    "scheduled_at": ["'-infinity'", "'4000-01-01 BC'", "'1970-01-01'"],
    "completed_at": ["'infinity'", "NOW()"],
    "state": ["'pending'", "'retrying'", "'running'"],
    "unique_key": ["gen_random_uuid()::text", "repeat('k', 1000) || random()::text"],
    "claim_id": ["gen_random_uuid()"],
    "taken_by": ["''", "'nobody'"],
}


def nasty(dice: random.Random) -> dict[str, str]:
    """The columns of a random row of jobs."""
    columns = dice.sample(sorted(NASTY), dice.randint(1, 5))
    return {column: dice.choice(NASTY[column]) for column in columns}


def test_two_hundred_random_rows(backend: Recorder, url: str) -> None:
    seed = random.randrange(10**6)
    print(f"the seed is {seed}")
    dice = random.Random(seed)
    with up(backend, url) as running:
        for _ in range(200):
            insert(url, **nasty(dice))
        assert_goes_on(url)

        def left() -> list[tuple[Any, ...]]:
            return query(
                url,
                "SELECT to_jsonb(j)::text FROM billing_jobs j "
                "WHERE state NOT IN ('succeeded', 'failed')",
            )

        wait_for(lambda: not left(), what=f"an end for each, seed {seed}")
        assert_goes_on(url)
        assert_goes_on(url, "thread")
        assert problems(running) == []
        running.stop()
