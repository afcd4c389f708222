"""A push is part of the service's own transaction, whichever library runs it."""

import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import asyncpg  # type: ignore[import-untyped]
import psycopg
import pytest
from billing_service import succeeds
from chancy_runtime import Chancy, Job, QueuedJob, Reference
from chancy_runtime.jobs import pushes
from psycopg import AsyncConnection, Connection
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import dict_row
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlalchemy.pool import NullPool

from harness.databases import query
from harness.recorder import EXAMPLE, plain_chancy

Execute = Callable[[str], Any]
JOBS = [
    Job(func="a.b", unique_key="b", kwargs={"name": "it's :text, $1 and 100%"}),
    Job(func="a.b", queue="mail"),
    Job(func="a.b", unique_key="a"),
]


def arguments(url: str, driver: str) -> dict[str, Any]:
    """The URL as arguments of a driver's connect()."""
    given = {**conninfo_to_dict(url)}
    if driver == "asyncpg":
        given["database"] = given.pop("dbname")
    return given


def async_engine(url: str, driver: str) -> Any:
    return create_async_engine(
        f"postgresql+{driver}://",
        connect_args=arguments(url, driver),
        poolclass=NullPool,
    )


def engine(url: str, driver: str) -> Engine:
    return create_engine(
        f"postgresql+{driver}://",
        connect_args=arguments(url, driver),
        poolclass=NullPool,
    )


class Undone(Exception):
    """Ends a transaction so that it is rolled back."""


@asynccontextmanager
async def connection_of_psycopg(url: str) -> AsyncIterator[tuple[Any, Execute]]:
    async with await AsyncConnection.connect(url) as connection:
        yield connection, connection.execute


@asynccontextmanager
async def cursor_of_psycopg(url: str) -> AsyncIterator[tuple[Any, Execute]]:
    """Its rows are tuples."""
    async with await AsyncConnection.connect(url) as connection:
        yield connection.cursor(), connection.execute


@asynccontextmanager
async def connection_of_asyncpg(url: str) -> AsyncIterator[tuple[Any, Execute]]:
    connection = await asyncpg.connect(**arguments(url, "asyncpg"))
    try:
        async with connection.transaction():
            yield connection, connection.execute
    finally:
        await connection.close()


@asynccontextmanager
async def pool_of_asyncpg(url: str) -> AsyncIterator[tuple[Any, Execute]]:
    async with (
        asyncpg.create_pool(**arguments(url, "asyncpg"), min_size=1) as pool,
        pool.acquire() as connection,
        connection.transaction(),
    ):
        yield connection, connection.execute


@asynccontextmanager
async def session_of_sqlalchemy(
    url: str, driver: str
) -> AsyncIterator[tuple[Any, Execute]]:
    async with async_sessionmaker(async_engine(url, driver)).begin() as session:
        yield session, lambda statement: session.execute(text(statement))


@asynccontextmanager
async def session_on_asyncpg(url: str) -> AsyncIterator[tuple[Any, Execute]]:
    async with session_of_sqlalchemy(url, "asyncpg") as both:
        yield both


@asynccontextmanager
async def session_on_psycopg(url: str) -> AsyncIterator[tuple[Any, Execute]]:
    async with session_of_sqlalchemy(url, "psycopg") as both:
        yield both


@asynccontextmanager
async def scoped_session_of_sqlalchemy(
    url: str,
) -> AsyncIterator[tuple[Any, Execute]]:
    made = async_sessionmaker(async_engine(url, "asyncpg"))
    session = async_scoped_session(made, scopefunc=lambda: "this test")
    try:
        async with session.begin():
            yield session, lambda statement: session.execute(text(statement))
    finally:
        await session.remove()


@asynccontextmanager
async def connection_of_sqlalchemy(url: str) -> AsyncIterator[tuple[Any, Execute]]:
    async with async_engine(url, "asyncpg").begin() as connection:
        yield connection, lambda statement: connection.execute(text(statement))


@contextmanager
def sync_connection_of_psycopg(url: str) -> Iterator[tuple[Any, Execute]]:
    with Connection.connect(url) as connection:
        yield connection, connection.execute


@contextmanager
def sync_cursor_of_psycopg(url: str) -> Iterator[tuple[Any, Execute]]:
    with Connection.connect(url) as connection, connection.cursor() as cursor:
        yield cursor, connection.execute


@contextmanager
def sync_session(url: str, driver: str) -> Iterator[tuple[Any, Execute]]:
    with sessionmaker(engine(url, driver)).begin() as session:
        yield session, lambda statement: session.execute(text(statement))


@contextmanager
def sync_session_on_psycopg(url: str) -> Iterator[tuple[Any, Execute]]:
    with sync_session(url, "psycopg") as both:
        yield both


@contextmanager
def sync_session_on_psycopg2(url: str) -> Iterator[tuple[Any, Execute]]:
    with sync_session(url, "psycopg2") as both:
        yield both


@contextmanager
def sync_scoped_session(url: str) -> Iterator[tuple[Any, Execute]]:
    session = scoped_session(sessionmaker(engine(url, "psycopg2")))
    try:
        with session.begin():
            yield session, lambda statement: session.execute(text(statement))
    finally:
        session.remove()


@contextmanager
def sync_connection_of_sqlalchemy(url: str) -> Iterator[tuple[Any, Execute]]:
    with engine(url, "psycopg2").begin() as connection:
        yield connection, lambda statement: connection.execute(text(statement))


ASYNC: list[Callable[[str], Any]] = [
    connection_of_psycopg,
    cursor_of_psycopg,
    connection_of_asyncpg,
    pool_of_asyncpg,
    session_on_asyncpg,
    session_on_psycopg,
    scoped_session_of_sqlalchemy,
    connection_of_sqlalchemy,
]
SYNC: list[Callable[[str], Any]] = [
    sync_connection_of_psycopg,
    sync_cursor_of_psycopg,
    sync_session_on_psycopg,
    sync_session_on_psycopg2,
    sync_scoped_session,
    sync_connection_of_sqlalchemy,
]


if TYPE_CHECKING:

    async def what_may_be_passed(
        app: Chancy, job: Job, own: asyncpg.Connection
    ) -> None:
        await app.push_ex(own, job)
        await app.push_ex(AsyncSession(), job)
        app.sync_push_many_ex(Session(), [job])
        async with await AsyncConnection.connect("") as connection:
            await app.push_ex(connection, job)
            await app.push_ex(connection.cursor(row_factory=dict_row), job)
        await app.push_ex(Session(), job)  # type: ignore[arg-type]
        app.sync_push_many_ex(AsyncSession(), [job])  # type: ignore[arg-type]


def name(value: object) -> str:
    return getattr(value, "__name__", str(value))


class Seen:
    """The effects of pushes that other sessions see, in a database of the example."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._listener = psycopg.connect(url, autocommit=True)
        self._listener.execute("CREATE TABLE orders (id int)")
        self._listener.execute("LISTEN billing_events")

    @property
    def jobs(self) -> dict[UUID, list[Any]]:
        rows = query(self.url, "SELECT id, queue, unique_key, kwargs FROM billing_jobs")
        return {id: values for id, *values in rows}

    @property
    def orders(self) -> int:
        return len(query(self.url, "SELECT id FROM orders"))

    @property
    def heard(self) -> list[str]:
        """The notifications since the last call."""
        self._listener.execute("NOTIFY billing_events, 'end'")
        heard = []
        for notification in self._listener.notifies():
            if notification.payload == "end":
                break
            heard.append(notification.payload)
        return heard

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def seen(migrated_url: str) -> Iterator[Seen]:
    seen = Seen(migrated_url)
    yield seen
    seen.close()


def pushed(seen: Seen, references: list[Reference]) -> None:
    """Checks the effects of a transaction that pushed JOBS, the first of them twice."""
    first, mail, other, again = [reference.identifier for reference in references]
    assert first == again
    assert {id: row[:2] for id, row in seen.jobs.items()} == {
        first: ["default", "b"],
        mail: ["mail", None],
        other: ["default", "a"],
    }
    assert seen.jobs[first][2] == JOBS[0].kwargs
    assert {type(reference.identifier) for reference in references} == {UUID}
    assert seen.orders == 1
    assert sorted(set(seen.heard)) == [
        '{"t": "queue.pushed", "q": "default"}',
        '{"t": "queue.pushed", "q": "mail"}',
    ]


def not_pushed(seen: Seen) -> None:
    assert (seen.jobs, seen.orders, seen.heard) == ({}, 0, [])


@pytest.mark.anyio
@pytest.mark.parametrize("transaction", ASYNC, ids=name)
async def test_jobs_of_a_rolled_back_transaction_are_not_pushed(
    transaction: Callable[[str], Any], tables: str
) -> None:
    seen = Seen(tables)
    app = plain_chancy(tables)
    references: list[Reference] = []

    async def push(undone: bool) -> None:
        async with transaction(tables) as (target, execute):
            references[:] = await app.push_many_ex(target, JOBS)
            references.append(await app.push_ex(target, JOBS[0]))
            await execute("INSERT INTO orders VALUES (1)")
            not_pushed(seen)
            if undone:
                raise Undone

    with pytest.raises(Undone):
        await push(undone=True)
    not_pushed(seen)
    await push(undone=False)
    pushed(seen, references)
    seen.close()


@pytest.mark.parametrize("transaction", SYNC, ids=name)
def test_jobs_of_a_rolled_back_transaction_are_not_pushed_without_asyncio(
    transaction: Callable[[str], Any], seen: Seen
) -> None:
    app = plain_chancy(seen.url)
    references: list[Reference] = []

    def push(undone: bool) -> None:
        with transaction(seen.url) as (target, execute):
            references[:] = app.sync_push_many_ex(target, JOBS)
            references.extend(app.sync_push_many_ex(target, [JOBS[0]]))
            execute("INSERT INTO orders VALUES (1)")
            not_pushed(seen)
            if undone:
                raise Undone

    with pytest.raises(Undone):
        push(undone=True)
    not_pushed(seen)
    push(undone=False)
    pushed(seen, references)


@pytest.mark.anyio
@pytest.mark.parametrize("driver", ["asyncpg", "psycopg"])
async def test_a_savepoint_that_is_rolled_back_pushed_nothing(
    driver: str, tables: str
) -> None:
    seen, app = Seen(tables), plain_chancy(tables)
    async with async_sessionmaker(async_engine(tables, driver)).begin() as session:
        await app.push_ex(session, Job(func="a.b", queue="kept"))
        with pytest.raises(Undone):
            async with session.begin_nested():
                await app.push_ex(session, Job(func="a.b", queue="undone"))
                raise Undone

    assert [queue for queue, *_ in seen.jobs.values()] == ["kept"]
    assert seen.heard == ['{"t": "queue.pushed", "q": "kept"}']
    seen.close()


@pytest.mark.anyio
async def test_code_called_by_run_sync_pushes_too(tables: str) -> None:
    app = plain_chancy(tables)

    def work(session: Session) -> list[Reference]:
        return app.sync_push_many_ex(session, JOBS)

    async with async_sessionmaker(async_engine(tables, "asyncpg")).begin() as session:
        references = await session.run_sync(work)

    found = query(tables, "SELECT id FROM billing_jobs")
    assert {id for (id,) in found} == {each.identifier for each in references}


@pytest.mark.anyio
async def test_running_workers_take_jobs_that_a_session_pushed(
    chancy: Chancy, tables: str
) -> None:
    async with async_sessionmaker(async_engine(tables, "asyncpg")).begin() as session:
        reference = await chancy.push_ex(
            session, succeeds.job.with_kwargs(text="hello")
        )

    ended = await chancy.wait_for_job(reference, timeout=60)
    assert ended is not None and ended.state == QueuedJob.State.SUCCEEDED


@pytest.mark.anyio
@pytest.mark.parametrize("transaction", [connection_of_psycopg, session_on_asyncpg])
async def test_without_notifications_none_is_sent(
    transaction: Callable[[str], Any], tables: str
) -> None:
    seen, app = Seen(tables), plain_chancy(tables, notifications=False)
    async with transaction(tables) as (target, _):
        await app.push_many_ex(target, JOBS[:2])
        assert await app.push_many_ex(target, []) == []

    assert (len(seen.jobs), seen.heard) == (2, [])
    seen.close()


@pytest.mark.anyio
async def test_an_object_without_a_transaction_of_the_service_is_refused(
    tables: str,
) -> None:
    """A pool would use any of its connections, and commit at once."""
    app = plain_chancy(tables)
    made = async_engine(tables, "asyncpg")
    with (
        engine(tables, "psycopg2").connect() as connection,
        Session(connection) as sync,
    ):
        async with asyncpg.create_pool(
            **arguments(tables, "asyncpg"), min_size=0
        ) as pool:
            for wrong in (pool, made, sync, connection, tables, None):
                with pytest.raises(TypeError, match="take a cursor or a connection of"):
                    await app.push_ex(cast(Any, wrong), JOBS[0])
            async with AsyncSession(made) as session:
                for wrong in (session, made, engine(tables, "psycopg2"), pool, tables):
                    with pytest.raises(TypeError, match=r"await push_many_ex\(\)"):
                        app.sync_push_many_ex(cast(Any, wrong), JOBS)

    assert query(tables, "SELECT id FROM billing_jobs") == []


@pytest.mark.parametrize(
    ("jobs", "statements"),
    [
        pytest.param([], 0, id="nothing"),
        pytest.param([Job(func="a.b")] * 1000, 1, id="a batch"),
        pytest.param([Job(func="a.b")] * 2500, 3, id="more"),
        pytest.param(
            [Job(func="a.b", kwargs={"a": "x" * 1_500_000})] * 5, 3, id="large jobs"
        ),
        pytest.param(
            [Job(func="a.b", kwargs={"a": "x" * 5_000_000})] * 2, 2, id="larger ones"
        ),
    ],
)
def test_a_batch_is_one_statement_up_to_a_size(
    jobs: list[Job], statements: int
) -> None:
    assert len([*pushes.Batch(jobs).texts("billing_")]) == statements


@pytest.mark.anyio
async def test_a_large_batch_arrives_complete(tables: str) -> None:
    jobs = [Job(func="a.b", unique_key=f"{n % 1500}") for n in range(2500)]
    async with session_on_asyncpg(tables) as (session, _):
        references = await plain_chancy(tables).push_many_ex(session, jobs)

    rows = {
        key: id for id, key in query(tables, "SELECT id, unique_key FROM billing_jobs")
    }
    assert len(rows) == 1500
    assert [each.identifier for each in references] == [
        rows[job.unique_key] for job in jobs
    ]


def run_script(code: str, **variables: str) -> str:
    """Runs a script in the folder of the example, like a team."""
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=EXAMPLE,
        env={"PATH": "", **variables},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_neither_sqlalchemy_nor_asyncpg_is_imported(migrated_url: str) -> None:
    printed = run_script(
        "import sys, psycopg, chancy_runtime\n"
        "from app.billing.workers.chancy_initialization import create_chancy\n"
        "rare = ['sqlalchemy', 'asyncpg', 'alembic', 'chancy_runtime.jobs.transactions']\n"
        "print([name for name in rare if name in sys.modules])\n"
        "app = create_chancy()\n"
        "with psycopg.connect(app.dsn) as connection:\n"
        "    app.sync_push_many_ex(connection, [chancy_runtime.Job(func='a.b')])\n"
        "print([name for name in rare[:3] if name in sys.modules])\n",
        WORKERS_DATABASE_URL=migrated_url,
    )

    assert printed == "[]\n[]\n"


def test_a_script_pushes_without_fastapi_and_without_a_loop(migrated_url: str) -> None:
    printed = run_script(
        "import sys, psycopg\n"
        "sys.modules['fastapi'] = None\n"
        "from app.billing.workers.chancy_initialization import create_chancy\n"
        "from app.billing.workers.record.worker import record\n"
        "job = record.job.with_kwargs(note='a script')\n"
        "with create_chancy() as chancy:\n"
        "    print(chancy.sync_push(job).identifier)\n"
        "app = create_chancy()\n"
        "with psycopg.connect(app.dsn) as connection:\n"
        "    (reference,) = app.sync_push_many_ex(connection, [record])\n"
        "print(reference.identifier)\n",
        WORKERS_DATABASE_URL=migrated_url,
    )

    rows = query(migrated_url, "SELECT id::text, func FROM billing_jobs ORDER BY id")
    assert [id for id, _ in rows] == printed.splitlines()
    assert {func for _, func in rows} == {"app.billing.workers.record.worker.record"}
