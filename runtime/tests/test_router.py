"""The workers as a router, on FastAPI from 0.112.2 on; older versions are refused."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from harness.commands import environment, run
from harness.services import service
from harness.starts import the_line

LIBRARY = Path(__file__).parents[1]
INITIALIZATION = """
import os
from contextlib import asynccontextmanager

from chancy_runtime import Chancy, WorkersError


@asynccontextmanager
async def initialize_workers():
    Chancy("postgresql://127.0.0.1/nothing")
    if error := os.environ.get("ERROR"):
        raise {"ours": WorkersError("no tables: migrate"), "theirs": KeyError("typo")}[error]
    print("workers start", flush=True)
    yield
    print("workers stop", flush=True)
"""
APPS = {
    "nothing": "app = FastAPI()",
    "on_event": """
app = FastAPI()


@app.on_event("startup")
async def set_up():
    print("set up", flush=True)
""",
    "lifespan": """
@asynccontextmanager
async def lifespan(app):
    print("set up", flush=True)
    try:
        yield {"state": 1}
    except Exception:
        print("swallowed", flush=True)
    print("tear down", flush=True)


app = FastAPI(lifespan=lifespan)
""",
}
EVENTS = {
    "nothing": ["workers start", "workers stop"],
    "on_event": ["set up", "workers start", "workers stop"],
    "lifespan": ["set up", "workers start", "workers stop", "tear down"],
}
SHAPES = list(APPS)


def slow(*versions: str) -> list[object]:
    return [pytest.param(version, marks=pytest.mark.slow) for version in versions]


@pytest.fixture(scope="module")
def pythons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Interpreters by their version of FastAPI; each is created when it is first needed."""
    return {"installed": Path(sys.executable)}


def python_with(version: str, pythons: dict[str, Path], folder: Path) -> Path:
    if version not in pythons:
        uv = os.environ.get("UV") or shutil.which("uv")
        assert uv, "uv is not installed: python3 -m pip install uv"
        requirement = "fastapi" if version == "newest" else f"fastapi=={version}"
        run(uv, "venv", "--quiet", folder / "venv", cwd=folder)
        pythons[version] = folder / "venv" / "bin" / "python"
        run(
            *(uv, "pip", "install", "--quiet", "--python", pythons[version]),
            *(requirement, "uvicorn", "psycopg[binary]", LIBRARY),
            cwd=folder,
        )
    return pythons[version]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A service with each of the apps; its workers are a stub that prints its steps."""
    workers = tmp_path / "billing" / "workers"
    workers.mkdir(parents=True)
    (workers / "chancy_initialization.py").write_text(INITIALIZATION)
    for name, app in APPS.items():
        (tmp_path / "billing" / f"{name}.py").write_text(
            "from contextlib import asynccontextmanager\n\n"
            "from chancy_runtime.web import workers_router\n"
            "from fastapi import FastAPI\n\n"
            "from .workers.chancy_initialization import initialize_workers\n\n"
            f"{app}\napp.include_router(workers_router(initialize_workers))\n"
        )
    return tmp_path


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "version", ["installed", *slow("0.112.2", "0.115.0", "newest")]
)
def test_the_workers_start_last_and_stop_first(
    version: str, shape: str, folder: Path, pythons: dict[str, Path]
) -> None:
    python = python_with(version, pythons, folder)

    with service(folder, f"billing.{shape}:app", {}, python=python) as running:
        running.stop()

    lines = running.output.splitlines()
    assert [line for line in lines if line in EVENTS["lifespan"]] == EVENTS[shape]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "version", ["installed", *slow("0.112.2", "0.115.0", "newest")]
)
def test_a_failed_start_ends_the_service_with_its_own_line(
    version: str, shape: str, folder: Path, pythons: dict[str, Path]
) -> None:
    python = python_with(version, pythons, folder)

    output = failed_start(folder, shape, python, ERROR="ours")

    line = the_line(output, "set up", "on_event", "lifespan event handlers", "Deprec")
    assert line == "ERROR:    no tables: migrate"


def test_an_unexpected_error_keeps_its_name_and_its_traceback(
    folder: Path,
) -> None:
    output = failed_start(folder, "lifespan", Path(sys.executable), ERROR="theirs")

    assert "in initialize_workers" in output
    assert "\nKeyError: 'typo'\n" in output
    assert "didn't yield" not in output and "swallowed" not in output


@pytest.mark.slow
def test_an_older_fastapi_is_refused_at_the_import(
    folder: Path, pythons: dict[str, Path]
) -> None:
    python = python_with("0.112.1", pythons, folder)

    result = run(
        *(python, "-c", "import billing.nothing"),
        cwd=folder,
        env=environment(),
        check=False,
    )

    assert result.returncode == 1
    assert result.stderr.splitlines()[-1] == (
        "chancy_runtime.WorkersError: FastAPI 0.112.1 never runs the "
        "lifespan of a router, and the workers would not start: "
        'run uv add "fastapi>=0.112.2"'
    )


def failed_start(folder: Path, shape: str, python: Path, **variables: str) -> str:
    """The output of a service that must end by itself during its start."""
    app = f"billing.{shape}:app"
    with service(folder, app, variables, wait=False, python=python) as running:
        assert running.process.wait(60) == 3, running.output
    assert "startup complete" not in running.output
    return running.output
