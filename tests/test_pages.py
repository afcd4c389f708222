"""The code, commands, answers and edits in the pages work as they are printed."""

import ast
import asyncio
import inspect
import json
import os
import re
import shlex
import shutil
import sys
import textwrap
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chancy_runtime
import psycopg
import pytest
import yaml
from chancy_runtime import Chancy, job, migrate
from chancy_workers.cli import make_parser
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from .support import (
    COPIER,
    PROGRAM,
    SECRET_VARIABLE,
    TEMPLATE,
    commit,
    copy,
    database,
    environment,
    query,
    run,
)

PAGES = sorted(
    [
        *(TEMPLATE / "docs").glob("*.md"),
        *(TEMPLATE / name for name in ("README.md", "runtime/README.md")),
    ]
)
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
READERS: dict[str, Callable[[str], object]] = {
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,
}
# A command inside a sentence.
COMMAND = re.compile(r"`(?:uvx --from TEMPLATE )?(chancy-workers [^`]+)`")


def ids(path: Path) -> str:
    return path.relative_to(TEMPLATE).as_posix()


def blocks(page: str | Path, language: str) -> list[str]:
    text = (TEMPLATE / page).read_text()
    return [
        textwrap.dedent(code)
        for _, named, code in BLOCK.findall(text)
        if named == language
    ]


def block(page: str, language: str, containing: str) -> str:
    """The only block of a page that contains a text."""
    (found,) = [code for code in blocks(page, language) if containing in code]
    return found


async def execute(code: str, names: dict[str, Any]) -> dict[str, Any]:
    """Runs printed Python with top-level await; returns the names that it defines."""
    compiled = compile(code, "page", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    result = eval(compiled, names)
    if inspect.isawaitable(result):
        await result
    return names


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_each_block_can_be_parsed(page: Path) -> None:
    for language, read in READERS.items():
        for code in blocks(page, language):
            read(code)
    for code in blocks(page, "python"):
        tree = compile(
            code,
            str(page),
            "exec",
            ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST,
        )
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "chancy_runtime":
                for each in node.names:
                    assert hasattr(chancy_runtime, each.name), each.name


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_each_printed_command_of_the_program_exists(page: Path) -> None:
    named = COMMAND.findall(page.read_text())
    for code in blocks(page, "sh"):
        lines = code.replace("\\\n", "").splitlines()
        named += [line for line in lines if " chancy-workers " in line]
    for command in named:
        words = shlex.split(command, comments=True)
        words = words[words.index("chancy-workers") + 1 :]
        if len(words) > 1:
            make_parser().parse_args([word for word in words if word != "…"])
        else:  # The page only mentions the command.
            with pytest.raises(SystemExit, match="^0$"):
                make_parser().parse_args([*words, "--help"])


@pytest.fixture(scope="module")
def billing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backend whose service billing has the job send_digest."""
    folder = tmp_path_factory.mktemp("pages") / "backend"
    copy(folder, "-d", "scope=backend", cwd=folder.parent)
    return folder


def shell(code: str, folder: Path, **variables: str) -> str:
    """Runs a block in one shell until a command fails, with the tests' own python."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return run(
        "bash", "-ec", code, cwd=folder, env=environment(PATH=path, **variables)
    ).stdout


def test_the_commands_for_tables_and_jobs_work(
    billing: Path, server_url: str, database_url: str
) -> None:
    """The commands of database.md, pushing.md and operations.md, one after the other."""
    create = block("docs/database.md", "sh", "migrate\n")
    local = "postgresql://postgres@localhost:5432/postgres"
    assert create.count(local) == 1
    with database(server_url) as own:
        variables = {SECRET_VARIABLE: database_url}
        # The second status fails, because migrations are missing.
        create = "set +e\n" + create.replace(local, f'"{own}"')
        output = shell(create, billing, **variables)
        assert output.count("chancy: nothing applied") == 1
        assert output.count("chancy: v1 to v8 applied") == 3
        assert query(own, "SELECT * FROM billing_jobs") == []

    for number, code in enumerate(
        [
            block("docs/pushing.md", "python", "with create_chancy() as chancy"),
            block("docs/pushing.md", "python", "psycopg.connect(chancy.dsn)"),
        ]
    ):
        script = billing / "app" / "billing" / f"resend{number}.py"
        if number:
            first = block("docs/pushing.md", "python", "with create_chancy()")
            code = f"import psycopg\n\n{first.partition('with ')[0]}\n{code}"
        script.write_text(code)
        shell(f"python -m app.billing.{script.stem}", billing, **variables)
    assert query(database_url, "SELECT func FROM billing_jobs") == 2 * [
        ("app.billing.workers.send_digest.worker.send_digest",)
    ]

    query(
        database_url,
        "UPDATE billing_jobs SET state = 'failed', completed_at = now(),"
        ' errors = \'[{"attempt": 1, "traceback": "out of paper"}]\' RETURNING 1',
    )
    ((id,), _) = query(database_url, "SELECT id::text FROM billing_jobs")
    operate = block("docs/operations.md", "sh", "queues")
    operate, names = re.subn(r"jobs [0-9a-f-]+…", f"jobs {id}", operate)
    assert names == 1
    output = shell(operate, billing, **variables)
    assert "out of paper" in output
    assert query(database_url, "SELECT DISTINCT state FROM billing_jobs") == [
        ("retrying",)
    ]


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer: Mapped[str | None]


@job()
async def ship(*, order_id: int) -> None: ...


def test_the_blocks_that_push_in_a_transaction_commit_a_row_and_a_job(
    database_url: str,
) -> None:
    engine = create_engine(database_url.replace("postgresql:", "postgresql+psycopg:"))
    Base.metadata.create_all(engine)

    async def push_each() -> None:
        chancy = Chancy(database_url, prefix="billing_", package="billing")
        asynchronous = create_async_engine(engine.url)
        async with (
            chancy,
            await psycopg.AsyncConnection.connect(database_url) as connection,
        ):
            await migrate(chancy)
            names = {
                "get_chancy": lambda: chancy,
                "sessions": async_sessionmaker(asynchronous),
                "connection": connection,
                "Order": Order,
                "customer": "ann",
                "ship": ship,
                "Session": Session,
                "engine": engine,
                "order": Order(),
            }
            for containing in ("sessions.begin()", "connection.trans", "Session(e"):
                code = block("docs/pushing.md", "python", containing)
                await execute(code, dict(names))
        await asynchronous.dispose()

    asyncio.run(push_each())
    engine.dispose()

    orders = query(database_url, "SELECT id FROM orders ORDER BY id")
    jobs = query(database_url, "SELECT (kwargs->>'order_id')::int FROM billing_jobs")
    assert orders == [(1,), (2,), (7,)]
    assert jobs == [(1,), (7,), (None,)]


def test_a_job_that_may_run_twice_charges_once(database_url: str) -> None:
    query(
        database_url,
        "CREATE TABLE orders AS SELECT 7 AS id, NULL::timestamptz AS charged_at;"
        " SELECT 1",
    )
    charged = []

    class Payments:
        async def charge(self, order_id: int, *, idempotency_key: str) -> None:
            charged.append((order_id, idempotency_key))

    names = {"job": job, "psycopg": psycopg, "URL": database_url}

    async def run_twice() -> None:
        code = block("docs/jobs.md", "python", "async def charge")
        defined = await execute(code, {**names, "payments": Payments()})
        for _ in range(2):
            await defined["charge"](order_id=7)

    asyncio.run(run_twice())

    assert charged == [(7, "order-7")]


def test_the_printed_settings_and_plugins_work(billing: Path, tmp_path: Path) -> None:
    """The service is built with the pages' code for chancy_initialization.py."""
    folder = tmp_path / "backend"
    shutil.copytree(billing, folder)
    file = folder / "app" / "billing" / "workers" / "chancy_initialization.py"
    text = file.read_text()
    (was,) = re.findall(r"^SETTINGS = .*\n", text, re.MULTILINE)
    printed = [
        block("docs/security.md", "python", "SETTINGS"),
        block("docs/metrics.md", "python", "PrometheusPlugin").replace(
            "plugins", "PLUGINS"
        ),
        block("docs/database.md", "python", "Trigger").splitlines()[0],
        block("docs/migrating-to-0.5.md", "python", "class OurSentryPlugin"),
    ]
    settings = block("docs/settings.md", "python", "SETTINGS")
    file.write_text("\n".join([text.replace(was, settings), *printed]))

    shell(
        "python -c 'import app.billing.workers.chancy_initialization as module;"
        " module.create_chancy(); assert module.PLUGINS'",
        folder,
        WORKERS_DATABASE_URL="postgresql://localhost/postgres",
    )


def versions(diff: str) -> tuple[str, str]:
    """The file before and after an edit."""
    lines = diff.splitlines(keepends=True)
    old, new = (
        "".join(line[1:] or line for line in lines if not line.startswith(sign))
        for sign in "+-"
    )
    return old, new


@pytest.mark.parametrize("diff", blocks("docs/wiring.md", "diff"), ids=["in", "router"])
def test_a_main_py_is_wired_like_the_printed_diff(diff: str, tmp_path: Path) -> None:
    old, new = versions(diff)
    if "lifespan" in diff:
        imports = (
            "from collections.abc import AsyncIterator\n"
            "from contextlib import asynccontextmanager\nfrom typing import Any\n\n"
            "from fastapi import FastAPI\n\n"
        )
        end = "\n\napp = FastAPI(lifespan=lifespan)\n"
        old, new = imports + old + end, imports + new + end
    service = tmp_path / "app" / "billing"
    (service / "workers").mkdir(parents=True)
    (service / "workers" / "chancy_initialization.py").touch()
    (service / "main.py").write_text(old)
    (tmp_path / "uv.lock").write_text('name = "fastapi"\nversion = "0.115.0"\n')

    run(PROGRAM, "wire", "app/billing/main.py", cwd=tmp_path)

    assert (service / "main.py").read_text() == new


def test_the_commands_for_a_copy_without_trust_work(tmp_path: Path) -> None:
    main = "from fastapi import FastAPI\n\napp = FastAPI()\n"
    (tmp_path / "app" / "billing").mkdir(parents=True)
    (tmp_path / "app" / "billing" / "main.py").write_text(main)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1"\n')
    commit(tmp_path)
    printed = block("docs/trust.md", "sh", "copier copy -T")
    commands = (
        printed.replace("uvx --from TEMPLATE chancy-workers", str(PROGRAM))
        .replace("uvx copier copy", f"{shlex.join(COPIER)} copy --defaults")
        .replace("TEMPLATE", shlex.quote(str(TEMPLATE)))
    )

    output = shell(commands, tmp_path)

    assert "+app.include_router(workers_router(initialize_workers))" in output
    wired = (tmp_path / "app" / "billing" / "main.py").read_text()
    assert "workers_router(initialize_workers)" in wired


def test_the_answers_for_workers_in_two_processes_work(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "answers.yml").write_text(
        block("docs/running.md", "yaml", "run_workers: both")
    )
    copy("app/billing", "--data-file", "answers.yml", cwd=tmp_path)
    commit(tmp_path)

    checked = run(PROGRAM, "check", "app/billing", cwd=tmp_path, check=False).stdout

    assert ".copier-answers.yml:1: " in checked
    assert " the queue " not in checked, checked
