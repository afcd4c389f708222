"""`copier copy` and `copier update` wire an existing service, exactly once."""

import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from .checkouts import UPDATES
from .legacy import HEAD, LIFESPAN, backend_with, lines_with, run_a_job
from .releases import INSTANCE, WORKING_TREE
from .shared import Shared
from .support import (
    COPIER,
    GIT,
    PYTEST,
    TEMPLATE,
    commit,
    copy,
    database,
    migrate,
    run,
    service,
)

MAIN = "app/billing/main.py"
IS_WIRED = r"main\.py is wired\b"
SHAPES = {
    "lifespan": LIFESPAN,
    "tabs-and-crlf": LIFESPAN.replace("    ", "\t").replace("\n", "\r\n"),
    "nothing": HEAD + "\napp = FastAPI()\n",
    "on_event": HEAD
    + """
app = FastAPI()


@app.on_event("startup")
async def set_up():
    print("set up", flush=True)


@app.on_event("shutdown")
async def tear_down():
    print("tear down", flush=True)
""",
    "factory": HEAD
    + """

def create_app():
    app = FastAPI(title="billing")

    @app.get("/")
    async def root():
        return {}

    return app
""",
}


def times(pattern: str, result: CompletedProcess[str]) -> int:
    """How many times a command printed something."""
    return len(re.findall(pattern, result.stdout + result.stderr))


def update(
    folder: Path, *arguments: str, service: str = "app/billing"
) -> CompletedProcess[str]:
    return run(
        *(*COPIER, "update", "--trust", "--defaults", *arguments, service), cwd=folder
    )


@pytest.fixture
def old_backend(tmp_path: Path) -> Path:
    """A backend with one service, whose app has a lifespan."""
    return backend_with(tmp_path / "backend", {MAIN: LIFESPAN})


# ------------------------------------------------------------------- what the task wires


@pytest.mark.parametrize("shape", SHAPES)
def test_an_old_service_runs_its_workers_after_a_copy_and_an_update(
    shape: str, tmp_path: Path, released: Path, database_url: str
) -> None:
    root = backend_with(tmp_path / "backend", {MAIN: SHAPES[shape]})

    copied = copy("app/billing", "--vcs-ref=v0.1.0", cwd=root, template=released)
    wired = (root / MAIN).read_bytes()
    commit(root)
    updated = update(root)

    assert times(IS_WIRED, copied) == 1
    assert times("main.py", updated) == 0
    assert (root / MAIN).read_bytes() == wired
    migrate(root, "app.billing", database_url)
    app = "create_app" if shape == "factory" else "app"
    with service(
        root, f"app.billing.main:{app}", {"WORKERS_DATABASE_URL": database_url}
    ) as running:
        run_a_job(root, database_url)
        running.stop()
    events = ("set up", "Started plugin 'Cron'", "tear down")
    expected = events if "set up" in SHAPES[shape] else events[1:2]
    assert lines_with(running, *events) == list(expected)


def test_a_first_copy_reports_no_conflict_and_overwrites_nothing(
    tmp_path: Path,
) -> None:
    ours = {MAIN: LIFESPAN, "app/billing/__init__.py": "OURS = 1\n"}
    root = backend_with(tmp_path / "backend", ours)

    copied = copy("app/billing", cwd=root)

    assert "conflict" not in copied.stdout + copied.stderr
    assert (root / "app/billing/__init__.py").read_text() == "OURS = 1\n"
    assert times(IS_WIRED, copied) == 1


DOCKERFILE = """\
FROM python:3.12-slim
COPY app/billing /srv/billing
WORKDIR /srv/billing
CMD ["uvicorn", "main:app", "--host", "0.0.0.0"]
"""


def test_the_import_fits_the_way_in_which_the_dockerfile_starts_the_service(
    tmp_path: Path, released: Path, database_url: str
) -> None:
    files = {MAIN: LIFESPAN, "Dockerfile": DOCKERFILE}
    root = backend_with(tmp_path / "backend", files)

    copied = copy("app/billing", "--vcs-ref=v0.1.0", cwd=root, template=released)

    assert times("fits ../../Dockerfile, which starts main:app", copied) == 1
    image = Path(
        shutil.copytree(root / "app" / "billing", tmp_path / "srv" / "billing")
    )
    migrate(image.parent, "billing", database_url)
    variables = {"WORKERS_DATABASE_URL": database_url}
    with service(image, "main:app", variables) as running:
        running.stop()
    assert lines_with(running, "Started plugin 'Cron'")


# Imports a file under the name that `fastapi run` gives it.
FASTAPI_RUN = """
import importlib, pathlib, sys

path = pathlib.Path(sys.argv[1]).resolve()
names, folder = [path.stem], path.parent
while (folder / "__init__.py").is_file():
    names, folder = [folder.name, *names], folder.parent
sys.path[0] = str(folder)
importlib.import_module(".".join(names))
"""
APP = "from fastapi import FastAPI\n\napp = FastAPI()\n"
TEST_OF_MAIN = "from main import app\n\ndef test_app():\n    assert app\n"
FLAT = {
    "main.py": {"main.py": f"import config\n{APP}", "config.py": ""},
    "a test": {"main.py": APP, "test_main.py": TEST_OF_MAIN},
    "tests/": {"main.py": APP, "tests/test_main.py": TEST_OF_MAIN},
}


@pytest.mark.parametrize(
    ("imported_in", "program"), list(zip(FLAT, [*UPDATES, "copier"], strict=True))
)
def test_modules_that_are_imported_by_their_bare_names_become_no_package(
    imported_in: str, program: str, next_release: Path, tmp_path: Path
) -> None:
    """An __init__.py would make pytest and `fastapi run` import them as billing.…"""
    files = {f"app/billing/{name}": text for name, text in FLAT[imported_in].items()}
    root = backend_with(tmp_path / "backend", files)

    copied = copy(
        *("app/billing", f"--vcs-ref={WORKING_TREE}"), cwd=root, template=next_release
    )
    commit(root)
    run(*UPDATES[program], "app/billing", cwd=root)

    folder = root / "app" / "billing"
    assert "as the next release" in (folder / INSTANCE).read_text()
    assert not (folder / "__init__.py").exists()
    python, *options = PYTEST
    for test in folder.glob("test_main.py"):
        run(python, "-P", *options, test, cwd=root)
    run(python, "-c", FASTAPI_RUN, MAIN, cwd=root)
    command = "pytest -o consider_namespace_packages=true app/billing/workers"
    assert times(command, copied) == 1
    run(*PYTEST, *command.split()[1:], "--collect-only", cwd=root)


PACKAGES = {
    "an app": {"main.py": APP},
    "no app": {"models.py": ""},
    "relative imports": {"main.py": f"from . import config\n{APP}", "config.py": ""},
    # The import is of the repository's package, not of the file beside.
    "another app": {"main.py": f"import app.core\n{APP}", "app.py": ""},
}


@pytest.mark.parametrize("files", PACKAGES.values(), ids=list(PACKAGES))
def test_the_other_services_become_packages(
    files: dict[str, str], tmp_path: Path
) -> None:
    """Otherwise `fastapi run` could not import .workers."""
    texts = {f"app/billing/{name}": text for name, text in files.items()}
    root = backend_with(tmp_path / "backend", {"app/core.py": "", **texts})

    copied = copy("app/billing", "-d", "main=main.py", cwd=root)

    assert (root / "app" / "billing" / "__init__.py").is_file()
    environment = {**os.environ, "PYTHONPATH": str(root)}
    run(sys.executable, "-c", FASTAPI_RUN, MAIN, cwd=root, env=environment)
    assert times("-m pytest app/billing/workers", copied) == 1


def test_pytest_finds_the_workers_tests_of_all_services_at_once(tmp_path: Path) -> None:
    files = {"app/mail/main.py": APP, MAIN: APP}
    root = backend_with(tmp_path / "backend", files)

    for name in ("mail", "billing"):
        copy(f"app/{name}", cwd=root)

    found = run(*PYTEST, "--collect-only", "app", cwd=root).stdout
    for name in ("mail", "billing"):
        assert f"app/{name}/workers/tests/" in found


def test_several_services_run_on_one_app(
    tmp_path: Path, released: Path, server_url: str
) -> None:
    root = backend_with(tmp_path / "backend", {"app/main.py": LIFESPAN})
    services = ("billing", "shipping")

    for name in services:
        copy(
            f"app/{name}",
            *("-d", "main=../main.py", "--vcs-ref=v0.1.0"),
            cwd=root,
            template=released,
        )
        assert not (root / "app" / name / "main.py").exists()
    wired = (root / "app/main.py").read_bytes()
    commit(root)
    for name in services:
        update(root, service=f"app/{name}")

    assert (root / "app/main.py").read_bytes() == wired
    with database(server_url) as url:
        for name in services:
            migrate(root, f"app.{name}", url)
        variables = {"WORKERS_DATABASE_URL": url}
        with service(root, "app.main:app", variables) as running:
            for name in services:
                run_a_job(root, url, f"app.{name}")
            running.stop()


def test_the_answer_app_chooses_between_several_apps(old_backend: Path) -> None:
    main = old_backend / MAIN
    main.write_text(LIFESPAN + "\nadmin = FastAPI()\n")

    undecided = copy("app/billing", cwd=old_backend)

    assert times("several apps", undecided) == 1
    assert main.read_text() == LIFESPAN + "\nadmin = FastAPI()\n"
    shutil.rmtree(main.parent / "workers")
    (main.parent / ".copier-answers.yml").unlink()

    copy("app/billing", "-d", "app=admin", cwd=old_backend)

    assert (
        "admin.include_router(workers_router(initialize_workers))" in main.read_text()
    )
    assert "async with" not in main.read_text()


def test_the_answer_main_names_the_file_to_wire(old_backend: Path) -> None:
    folder = old_backend / "app" / "billing"
    (folder / "main.py").rename(folder / "server.py")

    copy("app/billing", "-d", "main=server.py", cwd=old_backend)

    assert "async with initialize_workers():" in (folder / "server.py").read_text()
    assert not (folder / "main.py").exists()


def test_a_named_file_that_moved_is_reported_and_does_not_stop_an_update(
    old_backend: Path, released: Path
) -> None:
    folder = old_backend / "app" / "billing"
    (folder / "main.py").rename(folder / "server.py")
    copy(
        "app/billing",
        *("-d", "main=server.py", "--vcs-ref=v0.1.0"),
        cwd=old_backend,
        template=released,
    )
    (folder / "server.py").rename(folder / "api.py")
    commit(old_backend)

    updated = update(old_backend)

    assert times("there is no .*server.py", updated) == 1
    answers = (folder / ".copier-answers.yml").read_text()
    assert "_commit: v0.1.1" in answers and "main: server.py" in answers
    commit(old_backend)

    update(old_backend, "--vcs-ref=:current:", "-d", "main=api.py")

    assert "main: api.py" in (folder / ".copier-answers.yml").read_text()
    assert not (folder / "main.py").exists()


def test_paths_may_contain_spaces_and_quotes(tmp_path: Path) -> None:
    root = backend_with(tmp_path / 'it\'s $HOME "[a]"', {MAIN: LIFESPAN})

    assert times(IS_WIRED, copy("app/billing", cwd=root)) == 1


@pytest.mark.parametrize("scope", ["backend", "service"])
def test_a_rendered_main_is_already_wired_and_no_task_runs(
    scope: str, tmp_path: Path
) -> None:
    folder = tmp_path / "billing"

    copied = copy(folder, "-d", f"scope={scope}", cwd=tmp_path)

    (main,) = folder.rglob("main.py")
    assert "async with initialize_workers():" in main.read_text()
    assert not times("Running task|main.py is", copied)


def test_an_update_of_a_backend_wires_nothing(tmp_path: Path, released: Path) -> None:
    root = tmp_path / "backend"
    copy(
        *(root, "-d", "scope=backend", "--vcs-ref=v0.1.0"),
        cwd=tmp_path,
        template=released,
    )
    (root / MAIN).write_text(LIFESPAN)
    commit(root)

    assert not times("main.py is", update(root, service="."))

    assert (root / MAIN).read_text() == LIFESPAN


# ------------------------------------------------------------ what the task leaves alone


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("from flask import Flask\n\napp = Flask(__name__)\n", "Flask"),
        (
            "from starlette.applications import Starlette\n\napp = Starlette()\n",
            "Starlette",
        ),
        ("def main():\n    print('no app at all')\n", "no FastAPI app"),
    ],
)
def test_a_file_that_cannot_be_wired_stays_and_copy_and_update_succeed(
    text: str, reason: str, tmp_path: Path, released: Path
) -> None:
    root = backend_with(tmp_path / "backend", {MAIN: text})

    copied = copy("app/billing", "--vcs-ref=v0.1.0", cwd=root, template=released)
    commit(root)
    updated = update(root)

    for result in (copied, updated):
        assert times(f"main.py is left as it is: .*{reason}", result) == 1
    assert (root / MAIN).read_text() == text
    answers = (root / "app/billing/.copier-answers.yml").read_text()
    assert "_commit: v0.1.1" in answers
    assert list(root.rglob("*.rej")) == []


def test_a_read_only_file_stays_and_copy_and_update_succeed(
    old_backend: Path, released: Path
) -> None:
    (old_backend / MAIN).chmod(0o444)

    copied = copy("app/billing", "--vcs-ref=v0.1.0", cwd=old_backend, template=released)
    commit(old_backend)
    updated = update(old_backend)

    assert times("read-only", copied) == times("read-only", updated) == 1
    assert (old_backend / MAIN).read_text() == LIFESPAN
    answers = (old_backend / "app/billing/.copier-answers.yml").read_text()
    assert "_commit: v0.1.1" in answers


# ------------------------------------------------------------------------------- trust


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copier's settings of a user."""
    path = tmp_path / "settings.yml"
    path.write_text("{}")
    monkeypatch.setenv("COPIER_SETTINGS_PATH", str(path))
    return path


def without_trust(
    command: str, *arguments: str | Path, cwd: Path
) -> CompletedProcess[str]:
    return run(*(*COPIER, command, "--defaults", *arguments), cwd=cwd, check=False)


def test_without_trust_nothing_is_written(
    old_backend: Path, released: Path, settings: Path
) -> None:
    before = sorted(old_backend.rglob("*"))

    result = without_trust("copy", released, "app/billing", cwd=old_backend)

    assert result.returncode == 4
    assert "tasks" in result.stderr and "--trust" in result.stderr
    assert sorted(old_backend.rglob("*")) == before
    assert (old_backend / MAIN).read_text() == LIFESPAN


@pytest.mark.parametrize("trusted", ["{released}", "{released.parent}/"])
def test_the_trust_list_replaces_the_option(
    trusted: str, old_backend: Path, released: Path, settings: Path
) -> None:
    listed = f"trust: ['{trusted.format(released=released)}']\n"
    settings.write_text(listed)

    copied = without_trust(
        *("copy", "--vcs-ref=v0.1.0", released, "app/billing"), cwd=old_backend
    )

    assert copied.returncode == 0 and times(IS_WIRED, copied) == 1
    commit(old_backend)
    settings.write_text("{}")
    assert without_trust("update", "app/billing", cwd=old_backend).returncode == 4
    settings.write_text(listed)
    assert without_trust("update", "app/billing", cwd=old_backend).returncode == 0
    answers = (old_backend / "app/billing/.copier-answers.yml").read_text()
    assert "_commit: v0.1.1" in answers


def test_without_tasks_the_message_has_the_command_that_wires(
    old_backend: Path, released: Path, settings: Path, tmp_path: Path
) -> None:
    copied = without_trust("copy", "-T", released, "app/billing", cwd=old_backend)

    assert copied.returncode == 0
    assert (old_backend / MAIN).read_text() == LIFESPAN
    (command,) = re.findall("^    (uvx .* wire .*)$", copied.stderr, re.MULTILINE)
    uv = os.environ.get("UV") or shutil.which("uv")
    assert uv, "uv is not installed: python3 -m pip install uv"
    wiring = [uv, "tool", "run", *shlex.split(command)[1:]]

    shown = run(*wiring, "--diff", cwd=old_backend)
    assert "+        async with initialize_workers():" in shown.stdout
    assert (old_backend / MAIN).read_text() == LIFESPAN
    assert times(IS_WIRED, run(*wiring, cwd=old_backend)) == 1

    by_command = (old_backend / MAIN).read_text()
    with_tasks = backend_with(tmp_path / "other", {MAIN: LIFESPAN})
    copy("app/billing", cwd=with_tasks)
    assert (with_tasks / MAIN).read_text() == by_command


WATCHED = """
import os, runpy, sys

def note(event, values):
    if event == "open":
        _, mode, flags = values
        if not (set(mode or "") & set("wax+") or flags & (os.O_WRONLY | os.O_RDWR)):
            return
    elif event == "import":
        if values[0].partition(".")[0] in {*sys.stdlib_module_names, "wire_lifespan"}:
            return
    elif not event.startswith((
        "ctypes", "os.", "shutil.", "socket.", "subprocess.", "tempfile.", "urllib."
    )) or event in ("os.listdir", "os.listxattr", "os.scandir", "os.walk"):
        return
    print(event, repr(values), file=sys.stderr)

sys.addaudithook(note)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_the_task_opens_and_changes_only_the_one_file(old_backend: Path) -> None:
    program = TEMPLATE / "tasks" / "wire_lifespan"
    folder = old_backend / "app" / "billing"
    (folder / "workers").mkdir()
    (folder / "workers" / "chancy_initialization.py").touch()

    result = run(
        *(sys.executable, "-IB", "-c", WATCHED, program),
        *("--task=copy", "--service=billing", "--package=app.billing", "main.py"),
        cwd=folder,
    )

    assert "async with initialize_workers():" in (folder / "main.py").read_text()
    events = [line.partition(" ") for line in result.stderr.splitlines()]
    names = {event for event, _, _ in events}
    assert {"open", "os.rename"} <= names <= {"open", "os.rename", "os.chmod"}
    for _, _, values in events:
        paths = re.findall("'(/[^']*)'", values)
        assert paths and {Path(path).parent for path in paths} == {folder}, values
    assert sorted(path.name for path in folder.iterdir()) == ["main.py", "workers"]


# ------------------------------------------------------------------- from older releases


@pytest.fixture(scope="session")
def older(shared: Shared) -> Path:
    """The template with two of its releases, and the working tree as the next one."""
    return shared.folder("older releases/template", make_older)


def make_older(folder: Path) -> None:
    run("git", "clone", "--quiet", "--no-tags", TEMPLATE, folder, cwd=folder.parent)
    for version in ("v0.2.0", "v0.4.1"):
        (release,) = run(
            *("git", "log", "--format=%H", f"--grep=^release: {version}$"), cwd=folder
        ).stdout.split()
        run("git", "tag", version, release, cwd=folder)
    run("git", "rm", "-r", "--quiet", ".", cwd=folder)
    listed = run("git", "ls-files", "-z", "-co", "--exclude-standard", cwd=TEMPLATE)
    for name in filter(None, listed.stdout.split("\0")):
        if (TEMPLATE / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(TEMPLATE / name, folder / name)
    run("git", "add", "--all", cwd=folder)
    run(*GIT, "commit", "--quiet", "--allow-empty", "--message=next", cwd=folder)
    run("git", "tag", "v0.4.2", cwd=folder)


@pytest.mark.parametrize("main", ["rendered", "by hand", "other form", "not at all"])
def test_an_update_from_v0_2_0_wires_a_main_that_is_not_wired_yet(
    main: str, tmp_path: Path, older: Path
) -> None:
    texts = {
        "by hand": LIFESPAN.replace(
            "        yield",
            "        async with initialize_workers():\n            yield",
        ).replace(
            "import FastAPI\n",
            "import FastAPI\n\n"
            "from .workers.chancy_initialization import initialize_workers\n",
        ),
        "other form": LIFESPAN.replace(
            "    try:\n", "    workers = chancy.initialize_workers()\n    try:\n"
        )
        .replace("        yield", "        await workers.__aenter__()\n        yield")
        .replace(
            "import FastAPI\n",
            "import FastAPI\n\nfrom .workers import chancy_initialization as chancy\n",
        ),
        "not at all": LIFESPAN,
    }
    root = backend_with(tmp_path / "backend", {})
    if main != "rendered":
        backend_with(root, {MAIN: texts[main]})
    copy("app/billing", "--vcs-ref=v0.2.0", cwd=root, template=older)
    before = (root / MAIN).read_text()
    commit(root)

    updated = update(root)

    after = (root / MAIN).read_text()
    assert times(IS_WIRED, updated) == (main == "not at all")
    assert times(SWITCHED, updated) == (main == "rendered")
    if main == "not at all":
        assert after.count("async with initialize_workers():") == 1
    elif main != "rendered":
        assert times("main.py", updated) == 0
        assert after == before
    assert list(root.rglob("*.rej")) == []
    answers = (root / "app/billing/.copier-answers.yml").read_text()
    assert "_commit: v0.4.2" in answers and "main: main.py" in answers


SWITCHED = r"main\.py now imports from chancy_runtime"


@pytest.mark.parametrize("release", ["v0.2.0", "v0.4.1"])
@pytest.mark.parametrize("scope", ["service", "backend"])
def test_an_update_switches_the_imports_of_a_rendered_main(
    scope: str, release: str, tmp_path: Path, older: Path
) -> None:
    root = backend_with(tmp_path / "backend", {})
    if scope == "backend":
        shutil.rmtree(root)
    folder = "app/billing" if scope == "service" else "."
    root.mkdir(exist_ok=True)
    copy(
        *(folder, "-d", f"scope={scope}", f"--vcs-ref={release}"),
        cwd=root,
        template=older,
    )
    commit(root)

    updated = update(root, service=folder)

    text = (root / MAIN).read_text()
    assert times(SWITCHED, updated) == 1
    assert not times(IS_WIRED, updated)
    assert "from chancy_runtime.web import health_router\n" in text
    assert "app.include_router(health_router(get_chancy))\n" in text
    assert not re.findall(r"workers\.chancy_(?!initialization|instance)", text)
    ruff = (sys.executable, "-m", "ruff", "check", "--isolated", "--select=I,F", MAIN)
    run(*ruff, cwd=root)
    commit(root)
    assert not times("main.py", update(root, service=folder))


def test_an_update_switches_the_router_and_reports_imports_that_it_cannot_switch(
    tmp_path: Path, older: Path
) -> None:
    root = backend_with(tmp_path / "backend", {MAIN: SHAPES["nothing"]})
    copy("app/billing", "--vcs-ref=v0.4.1", cwd=root, template=older)
    assert "(workers_router)" in (root / MAIN).read_text()
    text = (root / MAIN).read_text()
    (root / MAIN).write_text(
        f"{text}\n\nfrom .workers.chancy_database import connect  # by hand\n"
    )
    commit(root)

    updated = update(root)

    text = (root / MAIN).read_text()
    assert "app.include_router(workers_router(initialize_workers))\n" in text
    assert "from .workers.chancy_database import connect  # by hand\n" in text
    row = text.splitlines().index(
        "from .workers.chancy_database import connect  # by hand"
    )
    assert times(rf"main\.py:{row}: from .*connect -> .*no replacement", updated) == 1
