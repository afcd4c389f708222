"""The console program works without a checkout, and finds the service of a file."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from zipfile import ZipFile

import pytest
from chancy_workers.source import place_of

from .legacy import LIFESPAN, backend_with
from .support import PROGRAM, TEMPLATE, copy, environment, run

MAIN = "app/billing/main.py"
ENTERED = "        async with initialize_workers():\n            yield\n"


def uv() -> str:
    found = os.environ.get("UV") or shutil.which("uv")
    assert found, "uv is not installed: python3 -m pip install uv"
    return found


@pytest.fixture(scope="session")
def wheel(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built package."""
    folder = tmp_path_factory.mktemp("wheel")
    run(uv(), "build", "--quiet", "--wheel", "--out-dir", folder, cwd=released)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture
def uvx(tmp_path: Path) -> Callable[..., CompletedProcess[str]]:
    """`uvx --from` for a user who has only uv and its cache of packages."""
    home = tmp_path / "home"
    home.mkdir()
    cache = run(uv(), "cache", "dir", cwd=tmp_path).stdout.strip()
    variables = environment(HOME=str(home), UV_CACHE_DIR=cache)

    def call(place: str, *words: str, cwd: Path) -> CompletedProcess[str]:
        return run(
            *(uv(), "tool", "run", "--quiet", "--python", sys.executable),
            *("--from", place, *words),
            cwd=cwd,
            env=variables,
            check=False,
        )

    return call


def wire(cwd: Path, *arguments: str, check: bool = True) -> CompletedProcess[str]:
    return run(PROGRAM, "wire", *arguments, cwd=cwd, check=check)


# ------------------------------------------------------------------- without a checkout


@pytest.mark.parametrize("place", ["wheel", "git+file://{released}", "{released}"])
def test_the_program_wires_without_a_checkout(
    place: str,
    wheel: Path,
    released: Path,
    uvx: Callable[..., CompletedProcess[str]],
    tmp_path: Path,
) -> None:
    root = backend_with(tmp_path / "backend", {MAIN: LIFESPAN})
    copy("app/billing", "-T", cwd=root)
    place = str(wheel) if place == "wheel" else place.format(released=released)

    def program(*options: str) -> CompletedProcess[str]:
        return uvx(place, "chancy-workers", "wire", *options, MAIN, cwd=root)

    shown = program("--diff")
    assert "+        async with initialize_workers():" in shown.stdout, shown.stderr
    assert (root / MAIN).read_text() == LIFESPAN
    assert program("--check").returncode == 1

    assert program().returncode == 0
    assert ENTERED in (root / MAIN).read_text()
    assert (program().returncode, program("--check").returncode) == (3, 0)

    assert program("--remove").returncode == 0
    assert (root / MAIN).read_text() == LIFESPAN


def test_the_wheel_contains_the_program_that_copier_runs(
    wheel: Path, released: Path
) -> None:
    with ZipFile(wheel) as archive:
        packed = {
            name.removeprefix("chancy_workers/"): archive.read(name)
            for name in archive.namelist()
            if name.startswith("chancy_workers/wire_lifespan/")
        }
    tasks = released / "tasks"
    assert packed == {
        str(path.relative_to(tasks)): path.read_bytes()
        for path in (tasks / "wire_lifespan").glob("*.py")
    }


@pytest.mark.parametrize(
    ("recorded", "place"),
    [
        ({"url": "file:///a%20b/template"}, "/a b/template"),
        ({"url": "file:///a/t", "vcs_info": {"vcs": "git"}}, "/a/t"),
        ({"url": "https://h/t", "vcs_info": {"vcs": "git"}}, "git+https://h/t"),
        ({"url": "ssh://git@h/t", "vcs_info": {"vcs": "git"}}, "git+ssh://git@h/t"),
    ],
)
def test_the_template_is_the_origin_that_the_installer_recorded(
    recorded: dict[str, object], place: str
) -> None:
    assert place_of(recorded) == place


def test_the_demo_is_also_a_command() -> None:
    shown = run(PROGRAM, "demo", "--help", cwd=TEMPLATE).stdout

    assert "--keep DIR" in shown


def test_an_unknown_command_is_refused_with_a_list_of_commands() -> None:
    refused = run(PROGRAM, "wier", cwd=TEMPLATE, check=False)

    assert refused.returncode == 2
    assert "'wire'" in refused.stderr and "'demo'" in refused.stderr


# ------------------------------------------------------------- which service is wired


def answers(service: str, **more: str) -> str:
    lines = {"scope": "service", "service": service, "database_secret": "X", **more}
    return "".join(f"{name}: {value}\n" for name, value in lines.items())


def workers_of(folder: str) -> dict[str, str]:
    """The modules that a wired file imports."""
    names = ("__init__", "chancy_initialization")
    return {f"{folder}/workers/{name}.py": "" for name in names}


def test_without_an_answers_file_the_folder_names_the_service(tmp_path: Path) -> None:
    root = backend_with(tmp_path, {MAIN: LIFESPAN, **workers_of("app/billing")})

    wire(root, MAIN)

    text = (root / MAIN).read_text()
    assert "from .workers.chancy_initialization import initialize_workers\n" in text


def test_the_nearest_answers_file_names_the_service_its_package_and_its_app(
    tmp_path: Path,
) -> None:
    two = LIFESPAN + "\nadmin = FastAPI()\n"
    root = backend_with(
        tmp_path,
        {
            "app/billing/api/server.py": two,
            **workers_of("app/billing"),
            "app/billing/.copier-answers.yml": "_src_path: another\n",
            "app/billing/.copier-answers.workers.yml": answers(
                "invoices", package="app.billing", app="admin"
            ),
        },
    )

    wire(root, "app/billing/api/server.py")

    text = (root / "app/billing/api/server.py").read_text()
    assert "from chancy_runtime.web import workers_router\n" in text
    assert "from ..workers.chancy_initialization import initialize_workers\n" in text
    assert "admin.include_router(workers_router(initialize_workers))" in text
    wire(root, "--remove", "app/billing/api/server.py")
    wire(root, "--app", "app", "app/billing/api/server.py")
    assert ENTERED in (root / "app/billing/api/server.py").read_text()


@pytest.mark.parametrize("file", ["app/main.py", "app/billing/main.py"])
def test_services_that_share_an_app_are_chosen_by_name(
    file: str, tmp_path: Path
) -> None:
    root = backend_with(tmp_path, {".git/HEAD": "", file: LIFESPAN})
    for name in ("billing", "shipping"):
        main = os.path.relpath(root / file, root / "app" / name)
        backend_with(
            root,
            {
                **workers_of(f"app/{name}"),
                f"app/{name}/.copier-answers.yml": answers(
                    name, package=f"app.{name}", main=main
                ),
            },
        )

    refused = wire(root, file, check=False)
    assert refused.returncode == 2
    assert "several services: add --service with one of billing, ship" in refused.stderr
    assert (root / file).read_text() == LIFESPAN

    wire(root, "--service=shipping", file)
    assert "shipping.workers.chancy_initialization" in (root / file).read_text()
    wire(root, "--service=billing", file)
    text = (root / file).read_text()
    assert text.index("async with initialize_workers()") < text.index(
        "async with initialize_billing_workers()"
    )


def test_a_backend_s_answers_apply_only_to_its_first_service(tmp_path: Path) -> None:
    root = tmp_path / "backend"
    copy(root, "-d", "scope=backend", cwd=tmp_path)
    backend_with(root, {"app/legacy/main.py": LIFESPAN})

    assert wire(root, MAIN, check=False).returncode == 3
    other = wire(root, "app/legacy/main.py", check=False)

    assert other.returncode == 4
    assert "render the workers first (copier copy" in other.stdout
    assert (root / "app/legacy/main.py").read_text() == LIFESPAN


def test_the_diff_can_be_shown_before_there_are_workers(tmp_path: Path) -> None:
    root = backend_with(tmp_path, {MAIN: LIFESPAN})

    shown = wire(root, "--diff", MAIN).stdout

    assert "+from .workers.chancy_initialization import initialize_workers" in shown
    assert (root / MAIN).read_text() == LIFESPAN
