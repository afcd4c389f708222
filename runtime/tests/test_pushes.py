"""A batch pushed in one statement leaves the same rows as Chancy's single statements."""

import asyncio
import enum
import functools
import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Self
from uuid import UUID, uuid4

import asyncpg  # type: ignore[import-untyped]
import chancy
import psycopg
import pytest
from chancy import Job, Limit, Reference
from chancy_runtime import Chancy
from chancy_runtime.jobs import pushes
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import AsyncConnection, AsyncCursor, ClientCursor, Connection
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import DictRow, dict_row
from psycopg.types.json import set_json_dumps

from harness.contract import uses
from harness.databases import query
from harness.recorder import plain_chancy
from harness.starts import until_locked

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STATES = ["pending", "running", "retrying", "succeeded", "failed"]
KEYS = st.none() | st.sampled_from(["", "a", "b", "B", "ä", "\x1f", "{,}"])
# Without NUL and lone surrogates, which PostgreSQL refuses.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
VALUES = st.none() | st.booleans() | st.integers() | TEXTS | st.lists(TEXTS, max_size=2)
DICTS = st.dictionaries(TEXTS, VALUES, max_size=3)
TIMES = st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2200, 1, 1))
ZONES = st.sampled_from([UTC, timezone(timedelta(hours=-3, minutes=-30))])
JOBS = st.builds(
    Job,
    func=TEXTS,
    queue=st.sampled_from(["default", "mail", "a 'queue'\""]),
    kwargs=st.none() | DICTS,
    priority=st.integers(-(2**31), 2**31 - 1),
    max_attempts=st.integers(0, 9),
    scheduled_at=TIMES | st.builds(datetime.replace, TIMES, tzinfo=ZONES),
    limits=st.lists(st.builds(Limit, st.sampled_from(Limit.Type), st.integers(1, 9))),
    unique_key=KEYS,
    meta=DICTS,
)


class Tables:
    """The example's tables, into which batches of jobs are pushed, again and again."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.apps: dict[str, chancy.Chancy] = {
            "Chancy": chancy.Chancy(url, prefix="billing_"),
            "ours": plain_chancy(url),
        }

    def fill(self, before: Sequence[tuple[str | None, str]]) -> None:
        """Empties the table, and inserts rows with these keys and states."""
        with psycopg.connect(self.url) as connection:
            connection.execute("DELETE FROM billing_jobs")
            for number, (key, state) in enumerate(before):
                connection.execute(
                    "INSERT INTO billing_jobs (id, queue, func, state, unique_key, "
                    "scheduled_at) VALUES (%s, 'default', 'a.b', %s, %s, %s)",
                    [UUID(int=number), state, key, NOW],
                )

    async def pushed(self, app: str, jobs: Sequence[Any]) -> list[Reference]:
        async with (
            await AsyncConnection.connect(self.url) as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            return await self.apps[app].push_many_ex(cursor, jobs)

    def sync_pushed(
        self, app: str, jobs: Sequence[Any], **options: Any
    ) -> list[Reference]:
        with Connection.connect(self.url, **options) as connection:
            set_json_dumps(functools.partial(json.dumps, default=str), connection)
            with connection.cursor(row_factory=dict_row) as cursor:
                return self.apps[app].sync_push_many_ex(cursor, jobs)

    async def pushed_by_asyncpg(self, jobs: Sequence[Any]) -> list[Reference]:
        arguments = {**conninfo_to_dict(self.url)}
        arguments["database"] = arguments.pop("dbname")
        connection = await asyncpg.connect(**arguments)
        try:
            async with connection.transaction():
                return await self.apps["ours"].push_many_ex(connection, jobs)
        finally:
            await connection.close()

    def outcome(self, push: Callable[[], list[Reference]]) -> dict[str, Any]:
        """The effects of a push: rows in the order of their ids, references, notifications."""
        with psycopg.connect(self.url, autocommit=True) as listener:
            listener.execute("LISTEN billing_events")
            references = push()
            listener.execute("NOTIFY billing_events, 'end'")
            heard = []
            for notification in listener.notifies():
                if notification.payload == "end":
                    break
                heard.append(notification.payload)
            cursor = listener.execute(
                "SELECT id, to_jsonb(j) - '{id,created_at}'::text[] "
                "FROM billing_jobs j ORDER BY id"
            )
            rows = cursor.fetchall()
        places = {id: place for place, (id, _) in enumerate(rows)}
        return {
            "rows": [values for _, values in rows],
            "references": [places[reference.identifier] for reference in references],
            "notifications": sorted(heard),
        }


@pytest.fixture
def pushing(migrated_url: str) -> Tables:
    return Tables(migrated_url)


def one_at_a_time(before: list[tuple[str | None, str]]) -> list[tuple[str | None, str]]:
    """The rows that can be in one table: each key has at most one unfinished row."""
    rows: list[tuple[str | None, str]] = []
    taken = set()
    for key, state in before:
        is_taken = key is not None and state not in ("succeeded", "failed")
        if not (is_taken and key in taken):
            rows.append((key, state))
        if is_taken:
            taken.add(key)
    return rows


def test_a_batch_becomes_the_same_rows_as_in_chancy(pushing: Tables) -> None:
    with asyncio.Runner() as runner:

        @settings(max_examples=20, deadline=None)
        @given(
            st.lists(st.tuples(KEYS, st.sampled_from(STATES)), max_size=8).map(
                one_at_a_time
            ),
            st.lists(JOBS, max_size=8),
        )
        def compare(before: list[tuple[str | None, str]], jobs: list[Job]) -> None:
            pushing.fill(before)
            wanted = pushing.outcome(lambda: runner.run(pushing.pushed("Chancy", jobs)))
            pushing.fill(before)
            found = pushing.outcome(lambda: runner.run(pushing.pushed("ours", jobs)))
            assert found == wanted
            pushing.fill(before)
            assert wanted == pushing.outcome(lambda: pushing.sync_pushed("ours", jobs))
            pushing.fill(before)
            found = pushing.outcome(lambda: runner.run(pushing.pushed_by_asyncpg(jobs)))
            assert found == wanted

        compare()


class Level(enum.IntEnum):
    HIGH = 7


class Names(enum.StrEnum):
    MAIL = "mail"


ODD: dict[str, dict[str, Any]] = {
    "a UUID as the key": {"unique_key": UUID(int=7)},
    "an enum as the key": {"unique_key": Names.MAIL},
    "a time as text": {"scheduled_at": "2026-05-01 07:00+02"},
    "an enum as the priority": {"priority": Level.HIGH},
    "an enum as the queue": {"queue": Names.MAIL},
    "a priority of NULL": {"priority": None},
    "meta of NULL": {"meta": None},
    "a list as meta": {"meta": []},
    "keywords that JSON has no type for": {"kwargs": {"at": NOW, "id": UUID(int=1)}},
}


@pytest.mark.parametrize("odd", ODD)
def test_values_of_other_types_are_stored_like_in_chancy(
    pushing: Tables, odd: str
) -> None:
    fields = {"func": "a.b", "scheduled_at": NOW, **ODD[odd]}
    plain = {"func": "a.b", "scheduled_at": NOW}
    # A list of keys of several types cannot be sorted, by Chancy or by the library.
    if "unique_key" not in fields:
        plain["unique_key"] = "a"
    jobs = [Job(**fields), Job(**{**fields, **plain}), Job(**fields)]
    outcomes = []
    for app in pushing.apps:
        pushing.fill([])
        push = functools.partial(pushing.sync_pushed, app, jobs)
        outcomes.append(pushing.outcome(push))
    if odd != "keywords that JSON has no type for":  # Only psycopg is set up for them.
        pushing.fill([])
        by_asyncpg = functools.partial(asyncio.run, pushing.pushed_by_asyncpg(jobs))
        outcomes.append(pushing.outcome(by_asyncpg))

    assert all(outcome == outcomes[0] for outcome in outcomes)


def test_a_cursor_that_binds_on_the_client_works_too(pushing: Tables) -> None:
    jobs = [Job(func="it's", unique_key=key) for key in ("a", None, "a", "b")]
    found = pushing.outcome(
        lambda: pushing.sync_pushed("ours", jobs, cursor_factory=ClientCursor)
    )

    assert found["references"] == [1, 0, 1, 2]


class Counting(AsyncCursor[DictRow]):
    """A cursor that counts its statements."""

    statements = 0

    async def execute(self, *args: Any, **kwargs: Any) -> Self:
        self.statements += 1
        return await super().execute(*args, **kwargs)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("jobs", "statements"),
    [
        pytest.param([], 0, id="nothing"),
        pytest.param([Job(func="a.b")] * 1000, 2, id="a batch and its notification"),
        pytest.param(
            [Job(func="a.b", queue=f"{n % 3}") for n in range(2500)], 4, id="more"
        ),
        pytest.param(
            [Job(func="a.b", kwargs={"a": "x" * 1_500_000})] * 4, 3, id="large jobs"
        ),
    ],
)
async def test_a_batch_is_one_statement_up_to_a_size(
    tables: str, jobs: list[Job], statements: int
) -> None:
    async with await AsyncConnection.connect(tables, autocommit=True) as connection:
        cursor = Counting(connection, row_factory=dict_row)
        references = await plain_chancy(tables).push_many_ex(cursor, jobs)
        sent = cursor.statements
        await cursor.execute("SELECT id FROM billing_jobs ORDER BY id")
        ids = [row["id"] for row in await cursor.fetchall()]

    assert sent == statements
    assert [reference.identifier for reference in references] == ids


@pytest.mark.anyio
async def test_each_batch_is_a_transaction(tables: str) -> None:
    jobs = [Job(func="a.b", unique_key=f"{n}" if n % 2 else None) for n in range(25)]
    async with plain_chancy(tables) as app:
        sizes = [len(each) async for each in app.push_many(jobs, batch_size=10)]
        with app:
            sizes += [len(each) for each in app.sync_push_many(jobs, batch_size=10)]

    assert sizes == [10, 10, 5, 10, 10, 5]
    transactions = query(
        tables, "SELECT count(*) FROM billing_jobs GROUP BY created_at"
    )
    assert sorted(transactions) == [(3,), (5,), (5,), (5,), (10,), (10,)]


@pytest.fixture
async def others(tables: str) -> AsyncIterator[AsyncConnection[DictRow]]:
    """A connection of another client."""
    connection = await AsyncConnection.connect(tables, row_factory=dict_row)
    async with connection:
        yield connection


@pytest.mark.anyio
async def test_rows_are_locked_in_the_order_of_keys(
    tables: str, others: AsyncConnection[DictRow]
) -> None:
    keys = ["d", "a", "c", "b"]
    jobs = [Job(func="a.b", unique_key=key) for key in keys]
    async with plain_chancy(tables) as app:
        (first,) = [each async for each in app.push_many(jobs)]
        await others.execute(
            "SELECT FROM billing_jobs WHERE unique_key = 'c' FOR UPDATE"
        )
        push = asyncio.create_task(anext(app.push_many(jobs)))
        await until_locked(others)
        cursor = await others.execute(
            "SELECT unique_key FROM billing_jobs ORDER BY 1 FOR UPDATE SKIP LOCKED"
        )
        not_locked_yet = [row["unique_key"] for row in await cursor.fetchall()]
        await others.rollback()

        assert await push == first

    assert not_locked_yet == ["c", "d"]


@pytest.mark.anyio
@pytest.mark.parametrize("end", ["commit", "rollback", "succeeded"])
async def test_a_concurrent_pusher_s_row_counts_once_it_is_committed(
    tables: str, others: AsyncConnection[DictRow], end: str
) -> None:
    jobs = [Job(func="a.b", unique_key=key) for key in ("a", "b", "c")]
    cursor = others.cursor()
    async with plain_chancy(tables) as app:
        (theirs,) = await app.push_many_ex(cursor, [jobs[1]])
        push = asyncio.create_task(anext(app.push_many(jobs)))
        await until_locked(others)
        if end == "succeeded":
            await cursor.execute("UPDATE billing_jobs SET state = 'succeeded'")
        await (others.rollback() if end == "rollback" else others.commit())
        references = await push

    assert (references[1] == theirs) == (end == "commit")
    assert len(set(references)) == 3


def test_the_conflict_is_chancy_s() -> None:
    (theirs,) = (
        text
        for text in uses("chancy.app:Chancy._push_job_sql")
        if "INSERT INTO" in text
    )

    def parts(text: str) -> list[str]:
        """The columns, and what happens when a key is in use."""
        text = re.sub(r"\s+", " ", text).rstrip("; ")
        columns = text[text.index("(") + 1 : text.index(")")]
        conflict = text[text.index("ON CONFLICT") : text.index("RETURNING")]
        return [re.sub(r"\s", "", columns), conflict.strip()]

    assert parts(pushes._PUSH_KEYS) == parts(theirs)
    assert parts(pushes._PUSH_TEXT) == parts(theirs)


def test_a_decorated_function_is_a_job(pushing: Tables) -> None:
    @chancy.job(queue="mail")
    def send() -> None:
        """Is a job."""

    found = pushing.outcome(
        lambda: pushing.sync_pushed("ours", [send, send.job, Job(func=f"{uuid4()}")])
    )

    assert [row["queue"] for row in found["rows"]] == ["mail", "mail", "default"]
    assert isinstance(pushing.apps["ours"], Chancy)
