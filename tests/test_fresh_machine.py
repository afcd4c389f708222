"""The commands of the closing message and the README work in uv's own environments."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .releases import WORKING_TREE
from .support import (
    TEMPLATE,
    commit,
    copy,
    database,
    environment,
    query,
    run,
    service,
    wait_for,
)

PYPROJECT = """\
[project]
name = "backend"
version = "1"
requires-python = ">=3.11"

[tool.uv]
package = false

[tool.pytest.ini_options]
pythonpath = ["."]
"""
MAIN = """\
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    yield


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def root() -> dict[str, str]:
    return {"service": "billing"}
"""


@pytest.fixture
def uv_environment() -> dict[str, str]:
    uv = os.environ.get("UV") or shutil.which("uv")
    assert uv, "uv is not installed: python3 -m pip install uv"
    return environment(PATH=f"{Path(uv).parent}{os.pathsep}{os.environ['PATH']}")


def shell(command: str, cwd: Path, env: dict[str, str]) -> str:
    """Runs a printed line; returns its output."""
    result = run("bash", "-c", command, cwd=cwd, env=env)
    return result.stdout + result.stderr


@pytest.mark.parametrize(("main_was_there", "top"), [(True, "."), (False, "src")])
def test_the_closing_message_has_every_command_that_a_bare_backend_needs(
    main_was_there: bool,
    top: str,
    tmp_path: Path,
    server_url: str,
    uv_environment: dict[str, str],
) -> None:
    root = tmp_path / "backend"
    main = root / top / "app" / "billing" / "main.py"
    main.parent.mkdir(parents=True)
    (root / top / "app" / "__init__.py").touch()
    (root / "pyproject.toml").write_text(PYPROJECT)
    if main_was_there:
        main.write_text(MAIN)
        shell("uv add --quiet fastapi uvicorn", root, uv_environment)

    output = copy(f"{top}/app/billing", cwd=root).stderr
    message = output.partition("The workers of billing")[2]

    for line in re.findall(r"^    (uv add .*)$", message, re.MULTILINE):
        shell(line, root, uv_environment)
    migrate, test = re.findall(
        r"^    (?:WORKERS_DATABASE_URL=\S+ )?(uv run .*)$", message, re.MULTILINE
    )

    (folder,) = (
        Path(name) for name in re.findall(r"^Next, from (\S+) ", message, re.MULTILINE)
    )
    assert folder == root / top
    assert " passed" in shell(
        test, folder, {**uv_environment, "WORKERS_TEST_DATABASE_URL": server_url}
    )
    shell("uv add --quiet --dev mypy", root, uv_environment)
    shell("uv run mypy --strict app", folder, uv_environment)
    with database(server_url) as url:
        shell(migrate, folder, {**uv_environment, "WORKERS_DATABASE_URL": url})
        with service(
            folder,
            "app.billing.main:app",
            {"WORKERS_DATABASE_URL": url},
            python=root / ".venv" / "bin" / "python",
        ) as running:
            assert running.request("/") == {"service": "billing"}
            wait_for(
                lambda: query(url, "SELECT 1 FROM billing_workers"),
                what="the worker's row",
            )
            running.stop()


def test_the_commands_of_the_rendered_readme_work_as_written(
    template: Path, tmp_path: Path, server_url: str, uv_environment: dict[str, str]
) -> None:
    root = tmp_path / "backend"
    release = f"--vcs-ref={WORKING_TREE}"
    copy(root, release, "-d", "scope=backend", cwd=tmp_path, template=template)
    cells = re.findall(
        r"^\| [^|]+ \| (.+) \|$", (root / "README.md").read_text(), re.MULTILINE
    )
    commands = [
        command for cell in cells for command in re.findall(r"`(uv run [^`]+)`", cell)
    ]
    assert len(commands) == 9

    with database(server_url) as url:
        variables = {
            **uv_environment,
            "WORKERS_DATABASE_URL": url,
            "WORKERS_TEST_DATABASE_URL": server_url,
        }
        *others, start, run_apart = commands
        for command in others:
            shell(command, root, variables)
        assert start == "uv run uvicorn app.billing.main:app"
        assert run_apart == "uv run python -m app.billing.workers run"
        apart = subprocess.Popen(
            [*run_apart.split(), "--port", "0"], cwd=root, env=variables
        )
        wait_for(
            lambda: query(url, "SELECT 1 FROM billing_workers"),
            what="the row of the worker in its own process",
        )
        apart.terminate()
        assert apart.wait(60) == 0
        with service(
            root,
            "app.billing.main:app",
            {"WORKERS_DATABASE_URL": url},
            python=root / ".venv" / "bin" / "python",
        ) as running:
            running.run_job("send_digest")
            running.stop()

    commit(root)
    (update,) = (
        cell.strip("`") for cell in cells if cell.endswith("chancy-workers update`")
    )
    assert shell(update, root, uv_environment).startswith("app/billing: current\n")


def test_no_file_of_the_template_names_a_machine_or_a_registry() -> None:
    listed = run("git", "ls-files", "-co", "--exclude-standard", cwd=TEMPLATE).stdout
    for name in listed.splitlines():
        path = TEMPLATE / name
        if path.is_file():
            text = path.read_text(errors="replace")
            assert str(TEMPLATE) not in text, name
            assert not re.search(
                r"https?://[\w.]*(pythonhosted|pypi\.org/simple)", text
            ), name
