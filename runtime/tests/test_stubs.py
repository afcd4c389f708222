"""The stubs match Chancy, and the type checkers of a service find them."""

import ast
import dataclasses
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import chancy
import pytest
from chancy import Chancy, Job, Queue, Worker
from chancy.executors.asyncex import AsyncExecutor
from chancy.executors.process import ProcessExecutor
from chancy.executors.thread import ThreadedExecutor
from chancy.hub import Hub
from chancy.migrate import Migrator
from chancy.plugins.cron import Cron
from chancy.plugins.leadership import Leadership
from chancy.plugins.metrics import Metrics
from chancy.plugins.pruner import Pruner
from chancy.plugins.recovery import Recovery
from chancy.plugins.workflow import Workflow, WorkflowPlugin
from chancy.utils import TaskManager

RUNTIME = Path(__file__).parents[1]
STUBS = RUNTIME / "src" / "chancy-stubs"

# Modules that stubtest cannot import on an older Python or without an extra of Chancy, and
# two aliases of a Literal, which it expects to be a Union.
NOT_TESTED = r"""
chancy\.executors\.sub
chancy\.plugins\.api(\..*)?
chancy\.plugins\.metrics\.metrics\.(MetricType|Resolution)
"""

# Changes that a later Chancy could make; the report must have each name.
CHANGES = {
    "chancy.app.Chancy.push": ("app.py", "push(self, job: ", "push(self, what: "),
    "chancy.executors.process.ProcessExecutor._create_pool": (
        "executors/process.py",
        "def _create_pool(self)",
        "def _create_pool(self, size)",
    ),
    "chancy.job.Job.__init__": ("job.py", "max_attempts: int = 1", "attempts: int = 1"),
    "chancy.job.Job.with_priority": ("job.py", "self, priority: ", "self, level: "),
    "chancy.plugins.cron._next_run": ("plugins/cron/__init__.py", "tz: ", "zone: "),
    "chancy.worker.Worker._stop": ("worker.py", "def _stop(", "def _end("),
}

SERVICE = '''\
"""A service that uses most of Chancy."""

from datetime import UTC, datetime
from typing import Any

from chancy import Chancy, Job, Limit, Queue, QueuedJob, Reference, Worker, job
from chancy.plugin import Plugin
from chancy.plugins.cron import Cron
from chancy.plugins.pruner import Pruner


@job(queue="mail", max_attempts=3, limits=[Limit(Limit.Type.TIME, 60)])
async def send_digest(*, note: str, context: QueuedJob | None = None) -> int:
    return len(note) + (context.attempts if context else 0)


@job()
def resize(*, path: str) -> None:
    print(path)


class Audit(Plugin):
    @staticmethod
    def get_identifier() -> str:
        return "service.audit"

    async def on_job_starting(self, *, job: QueuedJob, worker: Worker) -> QueuedJob:
        return job.with_meta({**job.meta, "by": worker.worker_id})

    async def on_job_completed(
        self,
        *,
        worker: Worker,
        job: QueuedJob,
        exc: Exception | None = None,
        result: Any | None = None,
    ) -> QueuedJob:
        if job.state is QueuedJob.State.FAILED:
            worker.chancy.log.error("%s failed: %s", job.func, exc)
        return job

    async def run(self, worker: Worker, chancy: Chancy) -> None:
        while await self.sleep(0.5):
            async with chancy.pool.connection() as connection:
                await connection.execute("SELECT 1")


async def main() -> None:
    pruner = Pruner(Pruner.Rules.Age() > 60, poll_interval=30)
    queue = Queue("mail", concurrency=2, executor=Chancy.Executor.Async, tags={"mail"})
    async with Chancy("postgresql://", plugins=[Audit(), Cron(), pruner]) as chancy:
        await chancy.declare(queue, upsert=True)
        reference: Reference = await chancy.push(send_digest)
        await chancy.push(send_digest.job.with_kwargs(note="x").with_priority(3))
        length: int = await send_digest(note="x")
        resize(path="x")
        later: Job = Job.from_func(resize, scheduled_at=datetime.now(UTC))
        async for pushed in chancy.push_many([resize, later.with_queue("images")]):
            print(pushed[0].identifier)
        done = await chancy.wait_for_job(reference, timeout=5)
        if done and done.errors:
            print(length, done.errors[0]["traceback"])
        await Cron.schedule(chancy, "0 * * * *", resize.job.with_unique_key("resize"))
        async with Worker(chancy, tags={"mail"}) as worker:
            await worker.wait_for_shutdown()
'''

# The type checker must report the lines with "# wrong", and no others.
WRONG = """\
from chancy import Chancy, Job, Queue, QueuedJob, Worker, job
from chancy.plugin import Plugin


@job(queu="mail")  # wrong
async def misspelled() -> None: ...


@job()
async def send(*, note: str) -> int:
    return len(note)


class Audit(Plugin):
    @staticmethod
    def get_identifier() -> str:
        return "service.audit"

    async def on_job_starting(self, *, job: QueuedJob, worker: Worker) -> None: ...  # wrong


async def main(chancy: Chancy) -> None:
    await chancy.push(1)  # wrong
    await chancy.push(send(note="x"))  # wrong
    chancy.sync_push(send)  # wrong
    await chancy.declare("mail")  # wrong
    Queue("mail", concurrency="x")  # wrong
    send.job.with_priority("high")  # wrong
    Job.from_func(send, priority="high")  # wrong
    await send(nott="x")  # wrong
    length: str = await send(note="x")  # wrong
    print(length, (await chancy.get_all_queues())[0].nam)  # wrong
    Worker(chancy, tags=["mail"])  # wrong
"""


@pytest.fixture(scope="module", params=["editable", "wheel"])
def python(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> str:
    """The Python of an environment with the library, installed as a folder or a wheel."""
    if request.param == "editable":
        return sys.executable
    folder = tmp_path_factory.mktemp("wheel")
    python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    run("uv", "build", "--wheel", str(RUNTIME), "--out-dir", str(folder))
    run("uv", "venv", "--python", sys.executable, str(folder / "venv"))
    (wheel,) = folder.glob("*.whl")
    run("uv", "pip", "install", "--python", str(python), str(wheel))
    return str(python)


@pytest.fixture(params=["mypy", "basedpyright"])
def check(request: pytest.FixtureRequest, python: str, tmp_path: Path) -> "Checker":
    return Checker(request.param, python, tmp_path)


@dataclasses.dataclass(frozen=True)
class Checker:
    """A type checker in strict mode, without any setting for Chancy."""

    name: str
    python: str
    folder: Path

    def __call__(self, text: str) -> tuple[set[int], str]:
        """Checks a file; returns the numbers of the lines with errors, and the output."""
        file = self.folder / "worker.py"
        file.write_text(text, encoding="utf-8")
        if self.name == "mypy":
            options = [
                "--strict",
                "--config-file=",
                f"--python-executable={self.python}",
            ]
        else:
            settings = self.folder / "pyrightconfig.json"
            settings.write_text('{"typeCheckingMode": "strict"}', encoding="utf-8")
            options = ["--pythonpath", self.python]
        ended = subprocess.run(
            [sys.executable, "-m", self.name, *options, file.name],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        output = ended.stdout + ended.stderr
        lines = {int(n) for n in re.findall(r"\.py:(\d+)(?::\d+ -|:) error", output)}
        assert bool(lines) == bool(ended.returncode), output
        return lines, output


def test_a_service_has_no_type_errors(check: Checker) -> None:
    lines, output = check(SERVICE)
    assert not lines, output


def test_each_wrong_use_is_a_type_error(check: Checker) -> None:
    wrong = {n for n, line in enumerate(WRONG.splitlines(), 1) if "# wrong" in line}
    lines, output = check(WRONG)
    assert lines == wrong, output


def test_the_stubs_agree_with_chancy(tmp_path: Path) -> None:
    ended = stubtest(tmp_path)
    assert not ended.returncode, ended.stdout + ended.stderr


def test_a_changed_chancy_is_reported_by_name(tmp_path: Path) -> None:
    copy = tmp_path / "changed" / "chancy"
    shutil.copytree(Path(chancy.__file__).parent, copy)
    for file, before, after in CHANGES.values():
        text = (copy / file).read_text(encoding="utf-8")
        assert before in text
        (copy / file).write_text(text.replace(before, after), encoding="utf-8")
    ended = stubtest(tmp_path, PYTHONPATH=str(copy.parent))
    reported = {line.partition(" ")[0] for line in ended.stdout.splitlines()}
    assert reported >= set(CHANGES), ended.stdout + ended.stderr


def stubtest(folder: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Compares the stubs with the installed Chancy."""
    allowed = folder / "allowed.txt"
    allowed.write_text(NOT_TESTED, encoding="utf-8")
    return subprocess.run(
        [
            *(sys.executable, "-m", "mypy.stubtest", "chancy", "--concise"),
            *("--ignore-missing-stub", "--ignore-unused-allowlist"),
            *("--allowlist", str(allowed)),
        ],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_attributes_in_the_stubs_exist() -> None:
    """stubtest does not check the attributes that __init__ sets."""
    missing = [
        f"{type(instance).__module__}.{type(instance).__qualname__}.{name}"
        for instance in instances()
        for kind in type(instance).__mro__
        for name in attributes_in_stub(kind)
        if not hasattr(instance, name)
    ]
    assert not missing


def instances() -> Iterator[object]:
    """Yields one object of each class that sets attributes."""
    app = Chancy("postgresql://", plugins=[Cron(), Leadership(), Metrics(), Pruner()])
    worker = Worker(app)
    yield from (app, worker, *app.plugins.values(), Recovery(), WorkflowPlugin())
    yield from (worker.database_retry("x"), Hub(), Migrator("x", "x"), TaskManager())
    yield Workflow("x")
    queue = Queue("x", concurrency=1)
    yield from (AsyncExecutor(worker, queue), ThreadedExecutor(worker, queue))
    executor = ProcessExecutor(worker, queue)
    yield executor
    executor.manager.shutdown()


def attributes_in_stub(kind: type) -> list[str]:
    """Returns the attributes that the stub of a class of Chancy declares."""
    package, _, path = kind.__module__.partition(".")
    if package != "chancy":
        return []
    module = STUBS.joinpath(*path.split("."))
    package_file = module / "__init__.pyi"
    file = package_file if package_file.exists() else module.with_suffix(".pyi")
    return annotated(file, kind.__name__)


def annotated(file: Path, name: str) -> list[str]:
    """Returns the annotated names in the body of a class."""
    return [
        line.target.id
        for node in ast.parse(file.read_text(encoding="utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == name
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    ]


def test_a_decorated_job_takes_each_field_of_a_job() -> None:
    fields = {field.name for field in dataclasses.fields(Job)} - {"func"}
    assert set(annotated(STUBS / "job.pyi", "_JobOptions")) == fields


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
