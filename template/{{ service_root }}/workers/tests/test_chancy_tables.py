"""python -m ….workers migrate | status, without the command line around them."""

import asyncio

import psycopg
import pytest
from chancy import Chancy

from ..__main__ import run_migrate, run_status
from ..chancy_errors import WorkersError
from ..chancy_initialization import create_chancy
from ..chancy_start import check_database
from ..chancy_tables import migrate

pytestmark = pytest.mark.anyio


async def test_migrate_creates_every_table_that_chancy_needs(
    database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await run_status() == 1
    assert "nothing applied" in capsys.readouterr().out

    assert await run_migrate() == 0

    async with create_chancy() as chancy:
        assert await chancy.is_up_to_date()
    assert "due" not in capsys.readouterr().out


async def test_migrating_again_or_twice_at_once_is_harmless(
    database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    await asyncio.gather(migrate(create_chancy()), migrate(create_chancy()))
    await migrate(create_chancy())

    assert await run_status() == 0


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

    assert await run_status() == 1


async def test_chancys_own_migrate_finds_nothing_left_to_do(chancy: Chancy) -> None:
    await chancy.migrate()

    assert await run_status() == 0
