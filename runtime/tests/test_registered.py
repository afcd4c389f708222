"""Rows run only registered functions, and the check imports nothing."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from chancy.plugins.workflow import Workflow, WorkflowPlugin
from chancy_runtime import (
    Chancy,
    Cron,
    CronJob,
    Job,
    Leadership,
    Queue,
    QueuedJob,
    Recovery,
    Settings,
    Worker,
    declare_queues,
    job,
    migrate,
    schedule_cron_jobs,
)
from chancy_runtime.jobs.registered import NotRegistered, Registered

from harness.databases import query
from harness.recorder import plain_chancy

# The package of this module's service; its jobs are in this module.
HERE = __name__
TREE = {
    "shop/__init__.py": "",
    "shop/orders/__init__.py": "raise RuntimeError('shop.orders was imported')",
    "shop/orders/worker.py": """
        import chancy
        import chancy_runtime as runtime
        from chancy_runtime import job as work
        from shop.own import job

        raise RuntimeError("shop.orders.worker was imported")

        @runtime.job(queue="a")
        def by_module(): ...

        @chancy.job()
        async def by_chancy(): ...

        @work()
        def renamed(): ...

        @job
        def by_a_decorator_of_its_own(): ...

        def plain(): ...

        @plain
        def other_decorator(): ...

        class job:
            def method(self): ...
        """,
    "shop/orders/broken.py": "@job()\ndef broken(:",
    "common/tasks/shared.py": "@job()\ndef shared(): ...\ndef plain(): ...",
    "worker.py": "@job()\ndef elsewhere(): ...",
    "shop/orders/worker/inner.py": "@job()\ndef hidden(): ...",
}
TRAP = '''
"""Records its import, and each call."""

from pathlib import Path

TRACES = Path(__file__).with_name("traces")
TRACES.mkdir(exist_ok=True)
(TRACES / "imported").touch()

from chancy.executors.asyncex import AsyncExecutor


def call(**kwargs):
    (TRACES / "called").touch()


async def acall(**kwargs):
    call()


class Executor(AsyncExecutor):
    pass
'''


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Packages on the path, most of which fail when they are imported."""
    folder = tmp_path_factory.mktemp("tree")
    for name, text in TREE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(dedent(text))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder


def registered(package: str | None, *also: str, enforces: bool = True) -> Registered:
    settings = Settings(only_registered=enforces, also_registered=also)
    log = logging.getLogger("test_registered")
    return Registered(package, settings, where="shop.workers", log=log)


def may_run(names: Registered, function: str) -> bool:
    try:
        names.check_function(function)
    except NotRegistered:
        return False
    return True


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("shop.orders.worker.by_module", True),
        ("shop.orders.worker.by_chancy", True),
        ("shop.orders.worker.renamed", True),
        ("shop.orders.worker.by_a_decorator_of_its_own", True),
        ("shop.orders.worker.plain", False),
        ("shop.orders.worker.other_decorator", False),
        ("shop.orders.worker.job", False),
        ("shop.orders.worker.missing", False),
        ("shop.orders.worker.inner.hidden", False),
        ("shop.orders.broken.broken", False),
        ("shop.orders.missing.by_module", False),
        ("shop.orders.worker", False),
        ("shop.orders", False),
        ("shop", False),
        ("shop.orders.../worker.by_module", False),
        ("shop.orders.wörker\0.x", False),
        ("shopping.orders.worker.by_module", False),
        ("worker.elsewhere", False),
        ("common.tasks.shared.shared", False),
        ("os.system", False),
        ("builtins.exec", False),
        ("system", False),
        ("", False),
        (".", False),
    ],
)
def test_functions_with_the_decorator_below_the_package_are_registered(
    function: str, expected: bool
) -> None:
    before = set(sys.modules)

    assert may_run(registered("shop.workers"), function) is expected
    assert not {name for name in set(sys.modules) - before if "shop" in name}


@pytest.mark.parametrize(
    ("package", "function", "expected"),
    [
        # From a process that was started in the folder above, or further down.
        (
            "shop",
            "TREE.shop.orders.worker.by_module",
            "shop.orders.worker.by_module",
        ),
        ("shop", "other.shop.orders.worker.by_module", ""),
        ("shop", "other.TREE.shop.orders.worker.by_module", ""),
        ("shop.orders", "orders.worker.by_module", "shop.orders.worker.by_module"),
        ("shop.orders", "worker.by_module", "shop.orders.worker.by_module"),
        ("shop.orders", "backend.orders.worker.by_module", ""),
        ("shop", "orders.worker.plain", ""),
        ("common.workers", "shop.orders.worker.by_module", ""),
        (None, "TREE.shop.orders.worker.by_module", ""),
    ],
)
def test_a_job_of_a_process_that_was_started_in_another_folder_has_its_name_here(
    package: str | None, function: str, expected: str, tree: Path
) -> None:
    """TREE stands for the folder that has the packages."""
    function = function.replace("TREE", tree.name)
    names = registered(package)

    if expected:
        assert names.check_function(function) == expected
        assert names.check_function(function) == expected
    else:
        assert not may_run(names, function)


@pytest.mark.usefixtures("tree")
def test_a_setting_names_functions_and_packages() -> None:
    names = registered("shop.workers", "os.path.join", "common")

    assert may_run(names, "os.path.join")
    assert may_run(names, "common.tasks.shared.shared")
    assert not may_run(names, "common.tasks.shared.plain")
    assert not may_run(names, "os.path.exists")
    assert may_run(
        registered("shop", "common.tasks.shared.plain"), "common.tasks.shared.plain"
    )
    assert "common" not in sys.modules


@pytest.mark.usefixtures("tree")
def test_without_a_package_each_function_with_the_decorator_is_registered() -> None:
    names = registered(None)

    assert may_run(names, "worker.elsewhere")
    assert may_run(names, "common.tasks.shared.shared")
    assert not may_run(names, "common.tasks.shared.plain")
    assert not may_run(names, "os.system")


def test_a_loaded_module_is_inspected_without_running_its_code() -> None:
    names = registered(HERE)

    assert may_run(names, f"{HERE}.note")
    assert not may_run(names, f"{HERE}.plain_note")
    assert not may_run(names, f"{HERE}.lazy_name")


def __getattr__(name: str) -> Any:
    """Like a package that imports its parts when they are first used."""
    if name == "lazy_name":
        pytest.fail("a name of a row was looked up with code of the module")
    raise AttributeError(name)


@pytest.mark.usefixtures("tree")
def test_while_it_is_not_enforced_each_name_is_warned_about_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    names = registered("shop.workers", "common", enforces=False)
    for _ in range(3):
        names.check_function("os.system")
        names.check_function("shop.orders.worker.by_module")
        names.check_function("common.tasks.shared.shared")
        names.check_executor("shop.executors.Own")
        names.check_executor(Chancy.Executor.Threaded)

    function, executor = caplog.messages
    assert function.startswith("the function os.system is not registered: ")
    assert "decorate it with @job below shop, or add it to also_registered" in function
    assert executor.startswith("the executor shop.executors.Own is not registered: ")


# --- a service ------------------------------------------------------------------------------

NOTES: list[str] = []
QUEUES = [
    Queue("async", executor=Chancy.Executor.Async, eager_polling=True),
    Queue("thread", executor=Chancy.Executor.Threaded, eager_polling=True),
    Queue(
        "process", executor=Chancy.Executor.Process, concurrency=1, eager_polling=True
    ),
    Queue("default", executor=Chancy.Executor.Async, eager_polling=True),
]


@job(queue="async")
async def note(*, text: str = "") -> None:
    NOTES.append(text)


@job(queue="thread")
def note_in_thread() -> None: ...


@job(queue="process")
def note_in_process() -> None: ...


async def plain_note(*, text: str) -> None:
    NOTES.append(text)


@asynccontextmanager
async def working(
    url: str, cron_jobs: list[CronJob] | None = None, **settings: Any
) -> AsyncIterator[Chancy]:
    """The service of this module."""
    app = plain_chancy(
        url,
        package=HERE,
        plugins=[Leadership(), Recovery(), Cron(), WorkflowPlugin()],
        settings=Settings(poll_interval=1, **settings),
        log=logging.getLogger(HERE),
    )
    async with app:
        await declare_queues(app, QUEUES)
        await schedule_cron_jobs(app, cron_jobs or [])
        async with Worker(app, register_signal_handlers=False):
            yield app


@pytest.fixture
def traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder in which a module records its import and each call."""
    (tmp_path / "trap_module.py").write_text(TRAP)
    monkeypatch.syspath_prepend(tmp_path)
    # This also works in the children of an executor, which get the path of this process.
    yield tmp_path / "traces"
    sys.modules.pop("trap_module", None)


async def ended(url: str, count: int) -> dict[str, tuple[str, int, str]]:
    """State, attempts and errors by queue, after a number of jobs have ended."""
    async with asyncio.timeout(60):
        while True:
            rows = query(
                url,
                "SELECT queue, state, attempts, errors::text FROM billing_jobs "
                "WHERE completed_at IS NOT NULL",
            )
            if len(rows) == count:
                return {
                    queue: (state, tries, text) for queue, state, tries, text in rows
                }
            await asyncio.sleep(0.05)


@pytest.fixture
def with_workflows(database_url: str) -> str:
    """A database with the tables of the service of this module."""
    plugins = [Leadership(), Recovery(), Cron(), WorkflowPlugin()]
    asyncio.run(migrate(plain_chancy(database_url, plugins=plugins)))
    return database_url


def insert(url: str, queue: str, func: str, **columns: object) -> None:
    names = "".join(f", {name}" for name in columns)
    places = ", %s" * len(columns)
    query(
        url,
        f"INSERT INTO billing_jobs (id, queue, func, max_attempts, kwargs{names}) "
        f"VALUES (gen_random_uuid(), %s, %s, 5, '{{}}'{places})",
        *(queue, func, *columns.values()),
    )


CALLS = {"async": "acall", "thread": "call", "process": "call"}


@pytest.mark.parametrize("enforces", [True, False])
def test_a_row_runs_what_is_registered_in_every_executor(
    enforces: bool,
    with_workflows: str,
    traces: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> dict[str, tuple[str, int, str]]:
        async with working(with_workflows, only_registered=enforces) as app:
            for _ in range(2):
                for queue, function in CALLS.items():
                    insert(with_workflows, queue, f"trap_module.{function}")
            for each in (note, note_in_thread, note_in_process):
                done = await app.wait_for_job(await app.push(each), timeout=60)
                assert done and done.state == QueuedJob.State.SUCCEEDED, done
            query(with_workflows, "DELETE FROM billing_jobs WHERE func !~ '^trap'")
            return await ended(with_workflows, 2 * len(CALLS))

    with caplog.at_level(logging.INFO):
        found = asyncio.run(run())

    lines = [text for text in caplog.messages if "trap_module" in text]
    if enforces:
        assert not traces.exists()
        for state, attempts, errors in found.values():
            assert (state, attempts) == ("failed", 1)
            assert "NotRegistered: the function trap_module." in errors
        assert len(lines) == 2 * len(CALLS)
        for line in lines:
            assert "failed at attempt 1 of 5: the function trap_module." in line
            assert f"decorate it with @job below {HERE}, or add it to" in line
    else:
        assert {path.name for path in traces.iterdir()} == {"imported", "called"}
        assert {state for state, _, _ in found.values()} == {"succeeded"}
        assert len(lines) == len(set(CALLS.values()))
        assert all("is not registered: a row of the database" in line for line in lines)


@pytest.mark.parametrize("enforces", [True, False])
def test_what_a_process_in_another_folder_pushed_runs_in_every_executor(
    enforces: bool, with_workflows: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As `workers.send_digest…` of `uvicorn main:app` for `app.billing.workers…`."""

    async def run() -> dict[str, tuple[str, int, str]]:
        async with working(with_workflows, only_registered=enforces):
            for each in (note, note_in_thread, note_in_process):
                job = each.job
                insert(
                    with_workflows,
                    job.queue,
                    f"{Path(__file__).parent.name}.{job.func}",
                )
            return await ended(with_workflows, 3)

    with caplog.at_level(logging.WARNING):
        found = asyncio.run(run())

    assert {state for state, _, _ in found.values()} == {"succeeded"}, found
    assert [text for text in caplog.messages if "registered" in text] == []


def test_the_row_of_a_queue_names_a_registered_executor_or_is_left_alone(
    with_workflows: str, traces: Path
) -> None:
    async def run() -> None:
        async with working(with_workflows, only_registered=True) as app:
            await app.declare(Queue("bad", executor="trap_module.Executor"))
            async with asyncio.timeout(60):
                while "queue_bad" not in app.monitor.failing:
                    await asyncio.sleep(0.05)
            done = await app.wait_for_job(await app.push(note), timeout=60)
            assert done and done.state == QueuedJob.State.SUCCEEDED

    asyncio.run(run())
    assert not traces.exists()


def test_an_executor_of_the_service_s_own_code_runs_its_queue(
    with_workflows: str, traces: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Queue("own", executor="trap_module.Executor", eager_polling=True)
    monkeypatch.setattr(sys.modules[HERE], "QUEUES", [*QUEUES, own])

    async def run() -> None:
        async with working(with_workflows, only_registered=True) as app:
            pushed = await app.push(note.job.with_queue("own"))
            done = await app.wait_for_job(pushed, timeout=60)
            assert done and done.state == QueuedJob.State.SUCCEEDED

    asyncio.run(run())
    assert traces.exists()


def test_jobs_and_schedules_from_before_still_run(
    with_workflows: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Earlier rows, cron rows, workflows, and jobs of from_func() that a setting names."""

    async def run() -> None:
        cron_jobs = [
            CronJob(job=note.job.with_kwargs(text="cron"), cron="0 0 1 1 *"),
        ]
        plain = Job.from_func(plain_note, queue="async", kwargs={"text": "plain"})
        insert(with_workflows, "async", f"{HERE}.note")
        async with working(
            with_workflows,
            cron_jobs,
            only_registered=True,
            also_registered=[f"{HERE}.plain_note"],
        ) as app:
            query(
                with_workflows,
                "UPDATE billing_cron SET next_run = NOW() - INTERVAL '1 minute'",
            )
            steps = Workflow("steps")
            steps.add("one", note.job.with_kwargs(text="one"))
            steps.add("two", note.job.with_kwargs(text="two"), ["one"])
            await WorkflowPlugin.push(app, steps)
            await app.push(plain)
            async with asyncio.timeout(60):
                while {"", "cron", "one", "two", "plain"} - set(NOTES):
                    await asyncio.sleep(0.05)

    NOTES.clear()
    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert [text for text in caplog.messages if "registered" in text] == []


def test_jobs_that_only_a_later_deployment_has_are_left_to_it(
    with_workflows: str,
) -> None:
    """An older replica that still runs does not know the functions of the later one."""

    async def run() -> None:
        async with working(with_workflows, only_registered=True) as app:
            query(
                with_workflows,
                "UPDATE billing_schema_version SET version = version + 3600 "
                "WHERE version_of = 'deployment'",
            )
            insert(with_workflows, "async", f"{HERE}.later.note")
            await app.push(note)
            async with asyncio.timeout(60):
                while not query(
                    with_workflows,
                    "SELECT 1 FROM billing_jobs WHERE scheduled_at > NOW() "
                    "AND state = 'pending' AND attempts = 0",
                ):
                    await asyncio.sleep(0.02)

    asyncio.run(run())
