"""Each recipe of docs/recipes works as described, with its printed code."""

import asyncio
import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import psycopg
import pytest
from chancy.plugins.reprioritize import Reprioritize
from chancy.plugins.workflow import Workflow, WorkflowPlugin
from chancy_runtime import Chancy, Limit, QueuedJob, Reference, migrate
from chancy_runtime.web import find_problems

from harness.commands import environment, wait_for
from harness.databases import connections_to, query
from harness.observed import until_none
from harness.recipes import PAGES, apply, blocks, make_backend
from harness.recorder import EXAMPLE, QUICK, Recorder, make_tables, states
from harness.services import service

CONFTEST = (
    Path(__file__).parents[2] / "template/{{ service_root }}/workers/tests/conftest.py"
)
State = QueuedJob.State
_KEYS = itertools.count(1)


@dataclass(frozen=True)
class Backend:
    """A backend with the code of a page, whose service can run in this process."""

    folder: Path
    url: str

    def module(self, name: str) -> Any:
        """A module of the service."""
        return importlib.import_module(f"app.billing.{name}")

    def query(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        return query(self.url, statement, *parameters)

    def column(self, statement: str, *parameters: object) -> list[Any]:
        return [value for (value,) in self.query(statement, *parameters)]

    async def until(self, statement: str, *expected: object) -> None:
        """Waits until a statement returns a column with these values.

        Raises:
            TimeoutError: It does not within 30 s.
        """

        async def others() -> object:
            return self.column(statement) != [*expected]

        await until_none(others)

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Service"]:
        """Enters the lifespan of the app; yields when the workers are ready."""
        main = self.module("main")
        async with main.lifespan(main.app):
            chancy = main.get_chancy()
            await until_none(lambda: find_problems(lambda: chancy))
            transport = httpx.ASGITransport(main.app)
            async with httpx.AsyncClient(
                transport=transport, base_url="http://app"
            ) as client:
                yield Service(chancy, client)

    def one_at_a_time(self) -> None:
        """Gives each queue one slot, so that jobs run one after the other."""
        queues = self.module("workers.chancy_initialization").QUEUES
        queues[:] = [replace(queue, concurrency=1) for queue in queues]

    @contextmanager
    def gate(self, table: str, condition: str) -> Iterator[Callable[[], None]]:
        """Blocks inserts of rows that meet a condition; yields what unblocks them."""
        key = next(_KEYS)
        with psycopg.connect(self.url, autocommit=True) as holder:
            holder.execute(f"SELECT pg_advisory_lock({key})")
            holder.execute(
                f"CREATE FUNCTION gate_{key}() RETURNS trigger LANGUAGE plpgsql AS "
                f"'BEGIN PERFORM pg_advisory_xact_lock({key}); RETURN NEW; END'"
            )
            holder.execute(
                f"CREATE TRIGGER gate_{key} BEFORE INSERT OR UPDATE ON {table} "
                f"FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION gate_{key}()"
            )
            yield holder.close

    async def until_held_up(self) -> None:
        """Waits until a session waits for a gate."""
        waiting = (
            "SELECT count(*)::int FROM pg_locks WHERE NOT granted AND database = "
            "(SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        await self.until(waiting, 1)

    async def make_due(self, chancy: Chancy) -> None:
        """Makes delayed jobs due."""
        self.query(
            "UPDATE billing_jobs SET scheduled_at = now() WHERE state = 'pending'"
        )
        async with chancy.pool.connection() as connection:
            await chancy.notify(connection.cursor(), "queue.pushed", {"q": "default"})


@dataclass(frozen=True)
class Service:
    """The running service of a Backend."""

    chancy: Chancy
    client: httpx.AsyncClient

    async def request(self, method: str, path: str, **options: Any) -> Any:
        response = await self.client.request(method, path, **options)
        assert response.is_success, response.text
        return response.json() if response.content else None

    async def ended(self, reference: Reference) -> QueuedJob:
        job = await self.chancy.wait_for_job(reference, timeout=60)
        assert job is not None
        return job


@pytest.fixture
async def backend(
    tmp_path: Path,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> AsyncIterator[Backend]:
    """A backend with the code of the page that the test is about, and its tables."""
    backend = Backend(tmp_path / "backend", database_url)
    make_backend(backend.folder)
    sql = apply(request.param, backend.folder)
    monkeypatch.syspath_prepend(backend.folder)
    others = _unload()
    await migrate(backend.module("workers.chancy_initialization").create_chancy())
    if sql:
        backend.query(sql)
    yield backend
    _unload()
    sys.modules.update(others)


def _unload() -> dict[str, ModuleType]:
    """Forgets the backend that is imported; returns its modules."""
    names = [name for name in sys.modules if name.partition(".")[0] == "app"]
    return {name: sys.modules.pop(name) for name in names}


def of_page(page: str) -> pytest.MarkDecorator:
    """Marks a test whose backend has the code of a page."""
    return pytest.mark.parametrize("backend", [page], indirect=True)


@pytest.mark.anyio
@of_page("unique-and-delayed-jobs.md")
async def test_no_change_is_lost_and_many_are_one_job(backend: Backend) -> None:
    index = "SELECT name FROM search_index"
    async with backend.running() as running:

        async def rename(name: str) -> None:
            await running.request("PUT", "/customers/1", params={"name": name})

        await rename("Ann")
        await rename("Anne")
        (delay,) = backend.column(
            "SELECT extract(epoch FROM scheduled_at - created_at)::int FROM billing_jobs"
        )
        assert 0 < delay <= 30

        with backend.gate("search_index", "NEW.name = 'Anne'") as open_gate:
            await backend.make_due(running.chancy)
            await backend.until_held_up()
            # The job has read the name, but has not written it yet.
            await rename("Anna")
            await backend.make_due(running.chancy)
            await backend.until("SELECT count(*)::int FROM billing_jobs", 2)
            assert backend.column(index) == []
            open_gate()
            await backend.until(index, "Anna")
        await backend.until("SELECT DISTINCT state FROM billing_jobs", "succeeded")


@pytest.mark.anyio
@of_page("priorities.md")
async def test_urgent_jobs_start_first_and_old_ones_get_more_urgent(
    backend: Backend,
) -> None:
    backend.one_at_a_time()
    sent = "SELECT recipient FROM outbox ORDER BY id"
    with backend.gate("outbox", "NEW.recipient = 'first'") as open_gate:
        async with backend.running() as running:

            async def newsletter(*to: str) -> None:
                await running.request("POST", "/newsletters", json=to)

            await newsletter("first")
            await backend.until_held_up()
            await newsletter("bulk 1", "bulk 2")
            job = backend.module("workers.send_mail.worker").send_mail.job
            await running.chancy.push(job.with_kwargs(to="usual"))
            await running.request("POST", "/passwords", params={"to": "urgent"})
            open_gate()
            await backend.until(sent, "first", "urgent", "usual", "bulk 1", "bulk 2")

            later = datetime.now(UTC) + timedelta(hours=1)
            await running.chancy.push(job.with_scheduled_at(later))
            plugin = running.chancy.plugins["chancy.reprioritize"]
            assert isinstance(plugin, Reprioritize) and plugin.check_interval == 60
            assert await plugin.reprioritize_jobs(running.chancy) == 0
            backend.query(
                "UPDATE billing_jobs SET created_at = now() - '11 min'::interval"
            )
            assert await plugin.reprioritize_jobs(running.chancy) == 1
            assert backend.column(
                "SELECT priority FROM billing_jobs WHERE state = 'pending'"
            ) == [1]


@pytest.mark.anyio
@of_page("fairness.md")
async def test_tenants_take_turns(backend: Backend) -> None:
    backend.one_at_a_time()
    order = "SELECT file FROM imports ORDER BY id"
    with (
        backend.gate("imports", "NEW.file = 'a1'") as first_gate,
        backend.gate("imports", "NEW.file = 'a4'") as second_gate,
    ):
        async with backend.running() as running:

            async def push(tenant: str, *numbers: int) -> None:
                files = [f"{tenant}{number}" for number in numbers]
                await running.request("POST", f"/tenants/{tenant}/imports", json=files)

            await push("a", 1, 2, 3, 4, 5, 6)
            await backend.until_held_up()
            await push("b", 1, 2)
            await push("c", 1)
            first_gate()
            await backend.until(order, "a1", "a2", "b1", "c1", "a3", "b2")
            await backend.until_held_up()
            # A new tenant neither overtakes the backlog nor waits for its end.
            await push("d", 1, 2, 3)
            second_gate()
            early = ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]
            await backend.until(order, *early, "a5", "d1", "a6", "d2", "d3")

            # After the backlog, all are equal again.
            for tenant in "eab":
                await push(tenant, 7)
            assert (
                len(
                    set(
                        backend.column(
                            "SELECT next FROM tenant_turns WHERE "
                            "tenant IN ('a', 'b', 'e')"
                        )
                    )
                )
                == 1
            )

    turns = backend.module("workers.turns")
    with psycopg.connect(backend.url) as connection:
        connection.execute("SET enable_seqscan = off")
        plan = connection.execute(
            f"EXPLAIN {turns._TURNS}", {"queue": "imports", "tenant": "a", "jobs": 1}
        ).fetchall()
    assert "billing_runtime_jobs_now" in str(plan)


@pytest.mark.anyio
@of_page("timeouts.md")
async def test_a_job_that_hangs_ends(backend: Backend) -> None:
    names = ["fetch_rates", "resize_images", "forecast"]
    fetch_rates, resize_images, forecast = (
        getattr(backend.module(f"workers.{name}.worker"), name).job for name in names
    )
    assert [job.limits[0].value for job in (fetch_rates, resize_images, forecast)] == [
        30,
        300,
        600,
    ]
    second = [Limit(Limit.Type.TIME, 1)]

    async def never_answers(
        _reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await asyncio.sleep(60)
        writer.close()

    accepts = await asyncio.start_server(never_answers, "127.0.0.1", 0)
    port = accepts.sockets[0].getsockname()[1]
    async with backend.running() as running:
        hangs = fetch_rates.with_kwargs(url=f"http://127.0.0.1:{port}")
        blocks = resize_images.with_kwargs(names=["a.png"] * 1000)
        query = {"days": 1000, "seconds": 1}
        computing = await running.request("POST", "/forecasts", params=query)
        references = [
            await running.chancy.push(job.with_limits(second).with_max_attempts(1))
            for job in (hangs, blocks)
        ]
        for reference in [*references, Reference(computing["id"])]:
            ended = await running.ended(reference)
            assert ended.state == State.FAILED
            assert "TimeoutError" in ended.errors[0]["traceback"]
    accepts.close()


@pytest.mark.anyio
@of_page("cancelling.md")
async def test_a_cancelled_job_stops_and_an_ended_job_stays(
    backend: Backend, tmp_path: Path
) -> None:
    async with backend.running() as running:

        async def export(name: str, orders: int) -> str:
            query = {"path": str(tmp_path / name), "orders": orders}
            answer = await running.request("POST", "/exports", params=query)
            return str(answer["id"])

        runs = await export("long.csv", 100_000)
        part = tmp_path / "long.csv.part"
        await until_none(lambda: false(part.exists()))
        await running.request("DELETE", f"/exports/{runs}")
        await until_none(lambda: true(part.exists()))
        assert (await running.ended(Reference(runs))).state == State.FAILED
        assert not (tmp_path / "long.csv").exists()

        done = await export("short.csv", 3)
        assert (await running.ended(Reference(done))).state == State.SUCCEEDED
        await running.request("DELETE", f"/exports/{done}")
        assert (await running.ended(Reference(done))).state == State.SUCCEEDED
        assert (tmp_path / "short.csv").read_text() == "0\n1\n2\n"

        archive = backend.module("workers.archive_orders.worker").archive_orders
        later = datetime.now(UTC) + timedelta(hours=1)
        waits = await running.chancy.push(archive.job.with_scheduled_at(later))
        await running.chancy.cancel_job(waits)
        assert (await running.ended(waits)).state == State.FAILED

        threaded = await running.chancy.push(archive)
        archived = "SELECT count(*) > 0 FROM archived"
        await backend.until(archived, True)
        await running.chancy.cancel_job(threaded)
        (worker,) = running.chancy.workers
        await until_none(lambda: true(len(worker.executors["archive"])))
        assert backend.column("SELECT count(*) < 1000 FROM archived") == [True]


async def true(value: object) -> bool:
    return bool(value)


async def false(value: object) -> bool:
    return not value


@pytest.mark.anyio
@of_page("long-jobs.md")
async def test_a_long_job_goes_on_where_a_deploy_stopped_it(backend: Backend) -> None:
    backend.query(
        "INSERT INTO orders (year, amount) SELECT 2025, n FROM generate_series(1, 1000) n;"
        "CREATE TABLE saved (done_until int);"
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN "
        "INSERT INTO saved VALUES (NEW.done_until); RETURN NEW; END';"
        "CREATE TRIGGER note AFTER UPDATE ON reports FOR EACH ROW "
        "EXECUTE FUNCTION note()"
    )
    steps = "SELECT done_until FROM saved ORDER BY 1"
    job = backend.module("workers.build_report.worker").build_report.job
    with backend.gate("reports", "NEW.done_until = 300") as open_gate:
        async with backend.running() as running:
            reference = await running.chancy.push(job.with_kwargs(year=2025))
            await backend.until_held_up()
            (worker,) = running.chancy.workers
            worker.shutdown_timeout = 0.1  # type: ignore[attr-defined]
        open_gate()

    assert backend.query("SELECT state, attempts FROM billing_jobs") == [("pending", 0)]
    assert backend.column(steps) == [100, 200]

    async with backend.running() as running:
        assert (await running.ended(reference)).state == State.SUCCEEDED
    assert backend.column("SELECT total FROM reports") == [1000 * 1001 / 2]
    assert backend.column(steps) == [*range(100, 1001, 100)]


@pytest.mark.anyio
@of_page("shared-resources.md")
async def test_jobs_share_an_engine_and_a_client(backend: Backend) -> None:
    connections: list[object] = []

    async def answer(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        connections.append(writer)
        while await reader.readuntil(b"\r\n\r\n"):
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n42")

    def ignore(reader: Any, writer: Any) -> asyncio.Task[None]:
        return asyncio.create_task(answer_until_closed(answer(reader, writer)))

    server = await asyncio.start_server(ignore, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    job = backend.module("workers.fetch_price.worker").fetch_price.job
    resources = backend.module("workers.resources").resources
    for start in (1, 2):
        async with backend.running() as running:
            for article in (1, 2, 3):
                fetch = job.with_kwargs(article=article + 10 * start, url=url)
                done = await running.ended(await running.chancy.push(fetch))
                assert done.state == State.SUCCEEDED, done.errors
            assert len(connections) < 3 * start
            pool = resources().sessions.kw["bind"].pool
            assert pool.checkedin() == 1
        await until_none(lambda: true(connections_to(backend.url)))
        with pytest.raises(RuntimeError, match="initialize_workers"):
            resources()
    assert backend.column("SELECT price FROM prices") == [42] * 6
    server.close()


async def answer_until_closed(answering: Any) -> None:
    try:
        await answering
    except (asyncio.IncompleteReadError, ConnectionError):
        pass


class Provider(ThreadingHTTPServer):
    """Charges cards and posts letters, and answers only when the test lets it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.received: list[tuple[str, str | None]] = []
        self.may_answer = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Provider

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.received.append((self.path, self.headers.get("Idempotency-Key")))
        self.server.may_answer.wait()
        try:
            self.send_response(200)
            self.end_headers()
        except OSError:
            pass  # The client was killed.

    def log_message(self, *arguments: object) -> None:
        """Writes nothing."""


def test_a_kill_at_the_worst_moment_does_nothing_twice(
    tmp_path: Path, database_url: str
) -> None:
    folder = tmp_path / "backend"
    make_tables(database_url)
    make_backend(folder)
    query(database_url, apply("idempotency.md", folder))
    query(database_url, "INSERT INTO balances VALUES (1, 100)")
    Recorder(folder).set(SETTINGS=QUICK)
    provider = Provider()
    for name, kwargs in {
        "book_invoice": {"customer": 1, "amount": 30},
        "charge_card": {"url": f"{provider.address}/charges", "amount": 30},
        "send_letter": {"url": f"{provider.address}/letters"},
    }.items():
        query(
            database_url,
            "INSERT INTO billing_jobs (id, queue, func, kwargs, max_attempts) "
            "VALUES (gen_random_uuid(), 'default', %s, %s, 1)",
            f"app.billing.workers.{name}.worker.{name}",
            json.dumps(kwargs),
        )
    variables = {"WORKERS_DATABASE_URL": database_url}
    backend = Backend(folder, database_url)
    # The work is done, but no result is saved.
    with backend.gate("billing_jobs", "NEW.state = 'succeeded'") as open_gate:
        with service(folder, "app.billing.main:app", variables) as running:
            wait_for(
                lambda: (
                    backend.column("SELECT amount FROM balances") == [70]
                    and len(provider.received) == 2
                ),
                timeout=120,
                what="the work of all three jobs",
            )
            os.killpg(running.process.pid, signal.SIGKILL)
        # PostgreSQL notices only after the sleep that the process is gone.
        backend.query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        wait_for(
            lambda: connections_to(database_url) == 1,
            timeout=120,
            what="the end of its connections",
        )
        open_gate()
    assert states(database_url) == {"running": 3}
    provider.may_answer.set()

    with service(folder, "app.billing.main:app", variables) as running:
        wait_for(
            lambda: (
                not {"running", "pending", "retrying"} & states(database_url).keys()
            ),
            what="the second run of all three jobs",
        )
        running.stop()

    assert backend.column("SELECT amount FROM balances") == [70]
    paths = [path for path, _ in provider.received]
    assert sorted(paths) == ["/charges", "/charges", "/letters"]
    keys = {key for path, key in provider.received if path == "/charges"}
    assert len(keys) == 1 and None not in keys
    ends = backend.query(
        "SELECT split_part(func, '.', 4), state FROM billing_jobs ORDER BY 1"
    )
    assert ends == [
        ("book_invoice", "succeeded"),
        ("charge_card", "succeeded"),
        ("send_letter", "failed"),
    ]
    assert "look and decide" in running.output
    provider.shutdown()


@pytest.mark.anyio
@of_page("workflows.md")
async def test_steps_follow_each_other_and_the_last_part_ends_it(
    backend: Backend,
) -> None:
    async with backend.running() as running:
        (worker,) = running.chancy.workers
        await asyncio.wait_for(worker.is_leader.wait(), 30)
        answer = await running.request("POST", "/months/2026-11/close")
        workflow = await WorkflowPlugin.wait_for_workflow(
            running.chancy, answer["id"], timeout=60
        )
        assert workflow.state == Workflow.State.COMPLETED
        first, *beside, last = backend.column("SELECT step FROM steps ORDER BY id")
        assert (first, last) == ("fetch_orders", "send_summary")
        assert sorted(beside) == ["add_up_returns", "add_up_sales"]

        job = backend.module("workers.resize_album.worker").resize_album.job
        pictures = [f"{number}.jpg" for number in range(20)]
        album = job.with_kwargs(album=1, pictures=pictures)
        reference = await running.chancy.push(album)
        published = "SELECT published FROM albums WHERE missing = 0"
        await backend.until(published, 1)
        # Each of its jobs runs a second time, as after a kill.
        ran = "SELECT id FROM billing_jobs WHERE func LIKE '%.worker.resize_%'"
        ids = backend.column(ran)
        assert len(ids) == 21 and reference.identifier in ids
        references = [*map(Reference, ids)]
        for each in references:
            await running.ended(each)
        await running.chancy.retry_jobs(references)
        for each in references:
            assert (await running.ended(each)).state == State.SUCCEEDED
        assert {*backend.column(ran)} == {*ids}
        await backend.until(published, 1)


def add_tests(folder: Path) -> Path:
    """Adds the folder for tests that the template renders."""
    tests = folder / "app/billing/workers/tests"
    tests.mkdir()
    (tests / "__init__.py").touch()
    (tests / "conftest.py").write_text(CONFTEST.read_text())
    return tests


def test_the_tests_of_a_page_pass(tmp_path: Path, server_url: str) -> None:
    folder = tmp_path / "backend"
    make_backend(folder)
    tests = add_tests(folder)
    apply("testing-with-your-session.md", folder)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests],
        cwd=folder,
        env=environment(
            WORKERS_TEST_DATABASE_URL=server_url,
            DATABASE_URL="postgresql+psycopg://nobody@127.0.0.1:1/the_app_s_own",
        ),
        capture_output=True,
        text=True,
    )
    assert "3 passed" in result.stdout, result.stdout + result.stderr


def test_each_page_has_its_test() -> None:
    source = Path(__file__).read_text()
    pages = {page.name for page in PAGES.glob("*.md")} - {"index.md"}
    index = (PAGES / "index.md").read_text()

    assert [page for page in pages if f'"{page}"' not in source] == []
    assert [page for page in pages if f"({page})" not in index] == []


@pytest.mark.parametrize("page", ["priorities.md", "workflows.md"])
def test_create_chancy_has_one_plugin_more_than_as_rendered(page: str) -> None:
    rendered = (EXAMPLE / "app/billing/workers/chancy_initialization.py").read_text()
    (printed,) = (each.code for each in blocks(page) if "create_chancy()" in each.code)

    lines = printed.splitlines()[3:]
    (added,) = (line for line in lines if line not in rendered.splitlines())
    assert "\n".join(line for line in lines if line != added) in rendered


def test_the_code_is_typed_and_formatted(tmp_path: Path) -> None:
    """All pages in one backend; where two define the same name, the last one counts."""
    make_backend(tmp_path / "backend")
    add_tests(tmp_path / "backend")
    for page in sorted(PAGES.glob("*.md")):
        for number, block in enumerate(blocks(page.name)):
            if block.language == "python":
                (tmp_path / f"{page.stem}_{number}.py").write_text(block.code)
        apply(page.name, tmp_path / "backend")

    ours = 'lint.isort.known-first-party = ["app"]'
    for folder, *tool in (
        (tmp_path, "ruff", "format", "--check", "--exclude", "backend"),
        (
            tmp_path,
            "ruff",
            "check",
            "--select",
            "I",
            "--config",
            ours,
            "--exclude",
            "backend",
        ),
        (tmp_path / "backend", "ruff", "check", "--select", "F", "--ignore", "F401"),
        (tmp_path / "backend", "mypy", "--strict", "app"),
    ):
        result = subprocess.run(
            [sys.executable, "-m", *tool],
            cwd=folder,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stdout + result.stderr
