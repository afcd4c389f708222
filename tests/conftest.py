"""Servers, renders and caches that tests share within one pytest-xdist worker."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from copier._main import Worker
from pytest_copie.plugin import Copie

from harness.servers import embedded_server

from .releases import make_next_release, make_template, pack
from .shared import Shared
from .support import GIT, MYPY, SCHEDULED, TEMPLATE, commit, copy, database, run

pytest_plugins = ["harness.options"]

# Imports of a rendered service that take mypy long.
IMPORTS = """\
import azure.identity, azure.keyvault.secrets, chancy_runtime.cli, chancy_runtime.testing
import chancy_runtime.web, fastapi.testclient, httpx, psycopg_pool, sentry_sdk, uvicorn
"""


@pytest.fixture(scope="session", autouse=True)
def no_settings_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keeps Copier from reading the user's trust list and defaults."""
    settings = tmp_path_factory.mktemp("copier") / "settings.yml"
    settings.write_text("{}")
    os.environ["COPIER_SETTINGS_PATH"] = str(settings)


@pytest.fixture(scope="session")
def server_url() -> Iterator[str]:
    """The PostgreSQL of WORKERS_TEST_DATABASE_URL, or an embedded one."""
    if url := os.environ.get("WORKERS_TEST_DATABASE_URL"):
        yield url
        return
    with embedded_server() as url:
        yield url


@pytest.fixture
def own_server_url() -> Iterator[str]:
    """An embedded PostgreSQL for one test, for roles and other global objects."""
    with embedded_server() as url:
        yield url


@pytest.fixture
def database_url(server_url: str) -> Iterator[str]:
    """An empty database."""
    with database(server_url) as url:
        yield url


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Shared:
    base = tmp_path_factory.getbasetemp()
    return Shared(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)


@pytest.fixture(scope="session")
def released(shared: Shared) -> Path:
    """The working tree as a repository with two equal releases, v0.1.0 and v0.1.1."""
    return shared.folder("released/template", make_released)


def make_released(folder: Path) -> None:
    listed = run(
        "git", "ls-files", "-z", "-co", "--exclude-standard", cwd=TEMPLATE
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (TEMPLATE / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TEMPLATE / name, folder / name)
    commit(folder)
    run("git", "tag", "v0.1.0", cwd=folder)
    run(*GIT, "commit", "--quiet", "--allow-empty", "--message=next", cwd=folder)
    run("git", "tag", "v0.1.1", cwd=folder)
    pack(folder)


@pytest.fixture(scope="session")
def template(shared: Shared) -> Path:
    """The template with all its releases, and the working tree as the newest one."""
    return shared.folder("releases/template", make_template)


@pytest.fixture(scope="session")
def next_release(shared: Shared) -> Path:
    """The template with a release after the working tree that changes a line of INSTANCE."""
    return shared.folder("next release/template", make_next_release)


@pytest.fixture(scope="session")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backend whose job has a schedule, rendered once; tests must not change its files."""
    folder = tmp_path_factory.mktemp("renders") / "backend"
    copy(folder, "-d", "scope=backend", *SCHEDULED, cwd=folder.parent)
    return folder


@pytest.fixture(scope="session")
def macros_of(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], Any]]:
    """The macros of a file in questions/, in Copier's Jinja environment."""
    folder = tmp_path_factory.mktemp("macros") / "billing"
    with Worker(src_path=str(TEMPLATE), dst_path=folder, vcs_ref="HEAD") as worker:
        yield (
            lambda name: worker.jinja_env.get_template(f"questions/{name}.jinja").module
        )


@pytest.fixture
def mypy_cache(
    shared: Shared, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A copy of a cache with the packages, which are the same for all renders.

    Each test has its own copy, because mypy writes the render's modules into it, and these
    have the same names in all renders.
    """
    full = shared.folder("mypy cache", fill_mypy_cache)
    mine = shutil.copytree(full, tmp_path_factory.mktemp("mypy") / "cache")
    yield mine
    shutil.rmtree(mine)


def fill_mypy_cache(folder: Path) -> None:
    """Checks a file that imports these packages."""
    folder.mkdir()
    (folder / "mypy.ini").write_text(MYPY)
    options = ("--config-file=mypy.ini", "--cache-dir=.")
    run(sys.executable, "-m", "mypy", *options, "-c", IMPORTS, cwd=folder)


@pytest.fixture(scope="session")
def rendered(copie_session: Copie) -> Callable[[str, dict[str, object]], Path]:
    """Renders answers once for all tests that use the same name; returns the folder."""
    folders: dict[str, Path] = {}

    def render(name: str, answers: dict[str, object]) -> Path:
        if name not in folders:
            result = copie_session.copy(extra_answers=answers)
            assert result.exception is None, result.exception
            assert result.project_dir is not None
            folders[name] = result.project_dir
        return folders[name]

    return render
