"""The tables: created once, secured, checked at the start, shown by the command."""

import asyncio
import json
import sys

import psycopg
import pytest
from billing_service import create_chancy
from chancy_runtime import Chancy, WorkersError, check_database, migrate
from chancy_runtime.cli import main, read_status

pytestmark = pytest.mark.anyio


async def test_migrate_creates_every_table_that_chancy_needs(
    database_url: str,
) -> None:
    status = await read_status(create_chancy())
    assert not status["ok"]
    assert "nothing applied" in status["parts"][0]["text"]

    await migrate(create_chancy())

    async with create_chancy() as chancy:
        assert await chancy.is_up_to_date()
    status = await read_status(create_chancy())
    assert status["ok"]
    assert [part["due"] for part in status["parts"]] == [[]] * len(status["parts"])


async def test_migrating_again_or_twice_at_once_is_harmless(
    database_url: str,
) -> None:
    await asyncio.gather(migrate(create_chancy()), migrate(create_chancy()))
    await migrate(create_chancy())

    assert (await read_status(create_chancy()))["ok"]


async def test_every_table_has_row_level_security(tables: str) -> None:
    with psycopg.connect(tables) as connection:
        rows = connection.execute(
            "SELECT tablename, rowsecurity FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()

    assert rows
    assert [name for name, secured in rows if not secured] == []


async def test_a_table_of_somebody_else_is_left_alone(database_url: str) -> None:
    prefix = create_chancy().prefix
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(f'CREATE TABLE "{prefix}queues" (mine text)')

    with pytest.raises(WorkersError, match=f"{prefix}queues .* not Chancy's"):
        await migrate(create_chancy())

    with psycopg.connect(database_url) as connection:
        tables = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
    assert tables == [(f"{prefix}queues",)]


async def test_a_start_without_the_tables_names_the_command(database_url: str) -> None:
    with pytest.raises(WorkersError, match=r"run python -m \S+\.workers migrate"):
        await check_database(create_chancy())

    assert not (await read_status(create_chancy()))["ok"]


async def test_chancys_own_migrate_finds_nothing_left_to_do(chancy: Chancy) -> None:
    await chancy.migrate()

    assert (await read_status(create_chancy()))["ok"]


def command(
    *arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[int, str]:
    """The exit status of a command and what it prints."""
    monkeypatch.setattr(sys, "argv", ["workers", *arguments])
    with pytest.raises(SystemExit) as end:
        main(create_chancy, "app.billing.workers")
    assert isinstance(end.value.code, int)
    return end.value.code, capsys.readouterr().out


def test_the_command_for_people_and_for_programs(
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        return command(*arguments, monkeypatch=monkeypatch, capsys=capsys)

    code, printed = run("status")
    assert code == 1
    assert printed.endswith("run python -m app.billing.workers migrate\n")

    code, printed = run("migrate")
    assert code == 0
    assert printed.startswith("billing_* at ")
    assert "v1 to v" in printed

    code, printed = run("status", "--json")
    assert code == 0
    assert json.loads(printed)["prefix"] == "billing_"
