"""Alembic's autogenerate, on a real database, ignores Chancy's tables and no others."""

import asyncio
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import chancy
import pytest
from alembic import command
from alembic.config import Config
from chancy.plugin import Plugin
from chancy.plugins.cron import Cron
from chancy.plugins.trigger import Trigger
from chancy_runtime import migrate
from chancy_runtime.alembic import include_object
from psycopg.conninfo import conninfo_to_dict

from harness.databases import query, tables, url_of
from harness.recorder import plain_chancy

MODELS = """
from sqlalchemy import Column, Integer, MetaData, Table, Text

MODELS = MetaData()
Table("billing_invoices", MODELS, Column("id", Integer, primary_key=True))
"""
# A table of Chancy in a team's models, for its queries.
MORE_MODELS = """
Table("billing_jobs", MODELS, Column("id", Integer, primary_key=True), Column("x", Text))
"""


class Migrations:
    """The migrations of a team, as `alembic init` creates them."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.config = Config(str(folder / "alembic.ini"))
        command.init(self.config, str(folder / "migrations"))
        self.config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
        # With a file, env.py would configure the logging of this whole process.
        self.config.config_file_name = None
        self.env = folder / "migrations" / "env.py"

    def compare(self, models: str, *prefixes: str) -> None:
        """Writes env.py with the models, and the prefixes to leave out, if any."""
        text = (self.folder / "migrations" / "env.py").read_text()
        names = ", ".join(f'"{prefix}"' for prefix in prefixes)
        include = f", include_object=include_object({names})" if prefixes else ""
        text = text.replace("target_metadata = None", "target_metadata = MODELS")
        found = "connection=connection, target_metadata=target_metadata"
        assert found in text
        text = text.replace(found, f"{found}{include}")
        imported = "from chancy_runtime.alembic import include_object\n"
        self.env.write_text(f"{imported}{models}\n{text}")

    def autogenerate(self) -> str:
        """Returns what `alembic revision --autogenerate` writes to upgrade."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            script: Any = command.revision(self.config, autogenerate=True)
        text = Path(script.path).read_text()
        return text.partition("def upgrade()")[2].partition("def downgrade()")[0]


@pytest.fixture
def url(database_url: str) -> Iterator[str]:
    """A database with all tables that Chancy can have, of two services."""
    plugins: list[Plugin] = [Cron(), Trigger()]
    for prefix in ("billing_", "shipping_"):
        app = plain_chancy(
            database_url, prefix=prefix, plugins=plugins, no_default_plugins=False
        )
        asyncio.run(migrate(app))
    query(database_url, "CREATE TABLE billing_old (id int)")
    yield database_url


@pytest.fixture
def migrations(tmp_path: Path, url: str) -> Migrations:
    name = str(conninfo_to_dict(url)["dbname"])
    return Migrations(
        tmp_path, url_of(url, name).replace("postgresql://", "postgresql+psycopg://")
    )


def test_autogenerate_would_drop_them(migrations: Migrations) -> None:
    migrations.compare(MODELS)

    wanted = migrations.autogenerate()

    for table in ("billing_jobs", "billing_workflow_steps", "shipping_schema_version"):
        assert f"drop_table('{table}')" in wanted


@pytest.mark.parametrize(
    "models", [MODELS, MODELS + MORE_MODELS], ids=["own", "a table of Chancy too"]
)
def test_autogenerate_leaves_them_alone(
    models: str, migrations: Migrations, url: str
) -> None:
    before = tables(url)
    migrations.compare(models, "billing_", "shipping_")

    wanted = migrations.autogenerate()

    # The service's own tables may have the same prefix.
    assert "create_table('billing_invoices'" in wanted
    assert "drop_table('billing_old')" in wanted
    assert wanted.count("op.") == 2
    command.upgrade(migrations.config, "head")
    command.check(migrations.config)
    own = {"alembic_version", "billing_invoices"}
    assert {*tables(url)} == {*before} - {"billing_old"} | own


def test_only_the_prefixes_that_are_named_are_left_out(migrations: Migrations) -> None:
    migrations.compare(MODELS, "billing_")

    wanted = migrations.autogenerate()

    assert "drop_table('shipping_jobs')" in wanted
    assert "'billing_jobs'" not in wanted


def test_each_table_that_chancy_can_have_is_left_out(url: str) -> None:
    is_included = include_object("billing_")

    left_out = {
        name for name in tables(url) if not is_included(None, name, "table", True, None)
    }

    ours = {name for name in tables(url) if name.startswith("billing_")}
    assert left_out == ours - {"billing_old"}
    assert len(left_out) > len(chancy.Chancy("").plugins)


@pytest.mark.parametrize("arguments", [(), (None, "orders", "table", False, None)])
def test_a_call_without_a_prefix_is_refused(arguments: Any) -> None:
    """The second are Alembic's arguments, if the function is passed without a call."""
    with pytest.raises(TypeError, match=r'include_object=include_object\("billing_"\)'):
        include_object(*arguments)
