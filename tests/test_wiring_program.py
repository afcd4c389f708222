"""The program that wires, with real files, links and folders."""

import os
import re
import resource
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .support import GIT, TEMPLATE, environment, run
from .wiring_cases import program, run_program

PROGRAM = TEMPLATE / "tasks" / "wire_lifespan"
WIRED, ALREADY, LEFT, NOTHING = 0, 3, 4, 5
LIFESPAN = '''\
from contextlib import asynccontextmanager

from fastapi import FastAPI

from .routes import router


@asynccontextmanager
async def lifespan(app: FastAPI):
    """Sets up — and tears down."""
    yield {"pool": connect(), "a_rather_long_name_of_a_setting": router, "b": {}}


app = FastAPI(lifespan=lifespan)
'''
ROUTER = """\
from fastapi import FastAPI

from .routes import router

app = FastAPI()
app.include_router(router)
"""


@pytest.fixture(params=[LIFESPAN, ROUTER], ids=["yield", "router"])
def main_py(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A main.py of the service billing, for each of the two ways to wire it."""
    return service_with(tmp_path, request.param)


def service_with(folder: Path, text: str) -> Path:
    file = folder / "app" / "billing" / "main.py"
    workers = file.parent / "workers"
    workers.mkdir(parents=True)
    (workers / "chancy_initialization.py").touch()
    file.write_text(text)
    (folder / "uv.lock").write_text('name = "fastapi"\nversion = "0.115.0"\n')
    return file


def files_beside(file: Path) -> list[str]:
    return sorted(path.name for path in file.parent.iterdir())


def wire(
    file: Path,
    *options: str,
    preexec_fn: Callable[[], None] | None = None,
    **variables: str,
) -> subprocess.CompletedProcess[str]:
    """Runs the program from the command line."""
    return subprocess.run(
        [sys.executable, str(PROGRAM), str(file), "--service=billing", *options],
        env=environment(**variables),
        capture_output=True,
        text=True,
        encoding="utf-8",
        preexec_fn=preexec_fn,
    )


def test_each_of_the_four_outcomes_has_its_own_exit_status(main_py: Path) -> None:
    assert wire(main_py).returncode == WIRED
    assert wire(main_py).returncode == ALREADY
    main_py.write_text("app = 1\n")
    assert wire(main_py).returncode == LEFT
    main_py.unlink()
    assert wire(main_py).returncode == NOTHING
    assert wire(main_py, "--no-such").returncode == 2


def test_check_fails_until_the_file_is_wired(main_py: Path) -> None:
    before = main_py.read_bytes()
    result = wire(main_py, "--check")
    assert (result.returncode, result.stdout) == (1, f"{main_py} is not wired.\n")
    assert main_py.read_bytes() == before
    wire(main_py)
    assert wire(main_py, "--check").returncode == 0


def test_as_a_task_it_never_fails(main_py: Path) -> None:
    assert wire(main_py, "--task=copy").returncode == 0
    main_py.write_text("def broken(:\n")
    result = wire(main_py, "--task=copy")
    assert result.returncode == 0
    assert "line 1" in result.stdout
    main_py.unlink()
    assert wire(main_py, "--task=copy").returncode == 0


def test_mode_and_links_stay(main_py: Path, tmp_path: Path) -> None:
    real = tmp_path / "elsewhere.py"
    main_py.rename(real)
    main_py.symlink_to(real)
    real.chmod(0o751)
    assert wire(main_py).returncode == WIRED
    assert main_py.is_symlink()
    assert "workers" in real.read_text()
    assert stat.S_IMODE(real.stat().st_mode) == 0o751
    assert files_beside(main_py) == ["main.py", "workers"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_the_owner_stays(main_py: Path) -> None:
    os.chown(main_py, 1234, 2345)
    assert wire(main_py).returncode == WIRED
    assert (main_py.stat().st_uid, main_py.stat().st_gid) == (1234, 2345)


def test_extended_attributes_stay(main_py: Path) -> None:
    try:
        os.setxattr(main_py, "user.origin", b"team")
    except OSError as error:
        pytest.skip(f"this file system has no extended attributes: {error}")
    assert wire(main_py).returncode == WIRED
    assert os.getxattr(main_py, "user.origin") == b"team"


def test_a_full_disk_leaves_the_old_file(main_py: Path) -> None:
    before = main_py.read_bytes()
    result = wire(main_py, preexec_fn=no_room_for_files)
    assert result.returncode == LEFT
    assert "File too large" in result.stdout
    assert main_py.read_bytes() == before
    assert files_beside(main_py) == ["main.py", "workers"]


def no_room_for_files() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))


def test_a_crash_during_the_write_leaves_the_old_file(main_py: Path) -> None:
    before = main_py.read_bytes()
    crash = (
        "import os, runpy, sys\n"
        "os.replace = lambda *_: os.kill(os.getpid(), 9)\n"
        f"sys.argv = ['wire', {str(main_py)!r}, '--service=billing']\n"
        f"runpy.run_path({str(PROGRAM)!r}, run_name='__main__')\n"
    )
    ended = subprocess.run([sys.executable, "-c", crash], check=False)
    assert ended.returncode == -9
    assert main_py.read_bytes() == before
    assert wire(main_py).returncode == WIRED


def make_pipe(file: Path) -> Path:
    os.mkfifo(file)
    return file


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda file: file.chmod(0o444), "read-only"),
        (lambda file: (file.unlink(), file.mkdir()), "is a directory"),
        (lambda file: (file.unlink(), make_pipe(file)), "not a regular file"),
        (lambda file: file.write_bytes(b"# coding: no-such\n"), "cannot be decoded"),
        (lambda file: file.write_bytes(b"x = '\xff'\n"), "cannot be decoded"),
        (lambda file: file.write_text("x = '\0'\n"), "null byte"),
        (lambda file: file.write_text(f"x = {'(' * 5000}{')' * 5000}\n"), "line 1"),
    ],
)
def test_a_file_that_cannot_be_wired_is_reported_with_the_reason(
    main_py: Path, make: Callable[[Path], object], reason: str
) -> None:
    make(main_py)
    result = wire(main_py)
    assert (result.returncode, result.stderr) == (LEFT, "")
    assert reason in result.stdout
    assert "is left as it is" in result.stdout


def test_hard_links_are_not_separated(main_py: Path, tmp_path: Path) -> None:
    os.link(main_py, tmp_path / "other.py")
    result = wire(main_py)
    assert result.returncode == LEFT
    assert "hard links" in result.stdout
    assert main_py.stat().st_nlink == 2


def test_a_change_that_an_editor_saves_during_the_run_stays(main_py: Path) -> None:
    saves = (
        "import os, runpy, sys\n"
        "fsync = os.fsync\n"
        f"os.fsync = lambda file: (fsync(file), open({str(main_py)!r}, 'a').write('# new'))\n"
        f"sys.argv = ['wire', {str(main_py)!r}, '--service=billing']\n"
        f"runpy.run_path({str(PROGRAM)!r}, run_name='__main__')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", saves], capture_output=True, text=True, check=False
    )
    assert result.returncode == LEFT, result.stderr
    assert "another program changed it" in result.stdout
    assert main_py.read_text().endswith("# new")
    assert files_beside(main_py) == ["main.py", "workers"]


def test_nothing_is_written_if_the_import_would_fail(main_py: Path) -> None:
    before = main_py.read_bytes()
    for file in (main_py.parent / "workers").iterdir():
        file.unlink()
    assert wire(main_py, "--diff").returncode == WIRED
    result = wire(main_py)
    assert result.returncode == LEFT
    assert "render the workers first" in result.stdout
    assert main_py.read_bytes() == before


@pytest.mark.parametrize("kind", ["missing", "link"])
def test_for_a_missing_file_there_is_nothing_to_do(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "main.py"
    if kind == "link":
        file.symlink_to("nowhere.py")
    result = wire(file)
    assert result.returncode == NOTHING
    assert f"there is no {file}" in result.stdout
    assert ("only a broken link" in result.stdout) == (kind == "link")


def test_a_file_in_a_submodule_is_left_alone(tmp_path: Path) -> None:
    inner, outer = tmp_path / "inner", tmp_path / "outer"
    for repository in (inner, outer):
        repository.mkdir()
        (repository / "main.py").write_text(ROUTER)
        run("git", "init", "--quiet", cwd=repository)
        run("git", "add", "--all", cwd=repository)
        run(*GIT, "commit", "--quiet", "--message=all", cwd=repository)
    allowed = ("-c", "protocol.file.allow=always")
    run("git", *allowed, "submodule", "--quiet", "add", inner, "shared", cwd=outer)
    service_with(outer, ROUTER)

    result = wire(outer / "shared" / "main.py", "--package=app.billing")

    assert result.returncode == LEFT
    assert "in the submodule shared" in result.stdout
    # If the whole backend is the submodule, the workers are in it, too.
    service_with(outer / "shared", ROUTER)
    own = (outer / "shared" / "main.py", "--package=app.billing")
    assert wire(*own).returncode == WIRED


@pytest.mark.parametrize("length", [40, 79, 200])
def test_reformatted_lines_are_recognized(main_py: Path, length: int) -> None:
    wire(main_py)
    run(
        sys.executable,
        "-m",
        "ruff",
        "format",
        f"--line-length={length}",
        "--isolated",
        main_py,
        cwd=TEMPLATE,
    )
    formatted = main_py.read_bytes()
    assert wire(main_py).returncode == ALREADY
    assert main_py.read_bytes() == formatted


NAMES = {"initialize_workers": "jobs", "workers_router": "router_of_jobs"}


def test_another_alias_is_recognized_and_removed(main_py: Path) -> None:
    before = main_py.read_text()
    wire(main_py)
    text = re.sub(
        r"import (\w*workers\w*)$",
        lambda found: f"import {found[1]} as {NAMES[found[1]]}",
        main_py.read_text(),
        flags=re.M,
    )
    for old, new in NAMES.items():
        text = re.sub(rf"(?<!import ){old}\b(?=[()])", new, text)
    main_py.write_text(text)
    assert "jobs" in main_py.read_text()
    assert wire(main_py).returncode == ALREADY
    assert wire(main_py, "--remove").returncode == WIRED
    assert main_py.read_text() == before


@pytest.mark.parametrize(
    "words",
    [
        "from .workers import chancy_initialization as jobs\n{0}"
        "async def f(stack):\n"
        "    await stack.enter_async_context(jobs.initialize_workers())\n",
        "import app.billing.workers.chancy_initialization\n{0}"
        "start = app.billing.workers.chancy_initialization.initialize_workers\n",
        "{0}def add():\n"
        "    from chancy_runtime.web import workers_router as jobs\n"
        "    from .workers.chancy_initialization import initialize_workers as start\n"
        "    app.router.include_router(jobs(start))\n",
        "from chancy_runtime import web\n"
        "from .workers.chancy_initialization import initialize_workers\n{0}"
        "router = web.workers_router(initialize_workers)\n"
        "app.include_router(router)\n",
    ],
)
def test_a_wiring_in_another_form_is_kept(tmp_path: Path, words: str) -> None:
    file = service_with(tmp_path, words.format(ROUTER))
    before = file.read_bytes()
    assert wire(file).returncode == ALREADY
    result = wire(file, "--remove")
    assert result.returncode == LEFT
    assert "in another form" in result.stdout
    assert file.read_bytes() == before


def test_a_wiring_in_a_module_that_the_file_imports_is_found(tmp_path: Path) -> None:
    file = service_with(tmp_path, LIFESPAN.replace(".routes", ".startup"))
    (file.parent / "startup.py").write_text(
        "from .workers.chancy_initialization import initialize_workers\n"
        "router = initialize_workers()\n"
    )
    result = wire(file)
    assert result.returncode == ALREADY
    assert "startup.py line 2" in result.stdout


def test_comments_on_the_wired_lines_are_not_lost(main_py: Path) -> None:
    wire(main_py)
    text = re.sub(r"(import \w+)$", r"\1  # ours", main_py.read_text(), flags=re.M)
    main_py.write_text(text)
    result = wire(main_py, "--remove")
    assert result.returncode == LEFT
    assert "by hand" in result.stdout
    assert main_py.read_text() == text


def test_the_team_s_lines_inside_the_wiring_stay_when_it_is_removed(
    tmp_path: Path,
) -> None:
    file = service_with(tmp_path, LIFESPAN)
    wire(file)
    head = "    async with initialize_workers():\n"
    assert head in file.read_text()
    file.write_text(
        file.read_text().replace(head, f"{head}        log('up')  # ours\n")
    )
    assert wire(file, "--remove").returncode == WIRED
    assert "\n    log('up')  # ours\n    yield {" in file.read_text()
    assert "workers" not in file.read_text()


def test_an_edit_that_cannot_be_proven_is_not_made(main_py: Path) -> None:
    before = main_py.read_bytes()
    broken = (
        "import runpy, sys\n"
        f"program = runpy.run_path({str(PROGRAM)!r})\n"
        "names = program['main'].__globals__\n"
        "make = names['make']\n"
        "def forgetful(source, edit):\n"
        "    new = make(source, edit)\n"
        "    return names['Source'](new.lines[:-1], new.ends[:-1])\n"
        "names['make'] = forgetful\n"
        f"sys.exit(program['main']([{str(main_py)!r}, '--service=billing']))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", broken], capture_output=True, text=True, check=False
    )
    assert result.returncode == LEFT, result.stderr
    assert "could not prove" in result.stdout
    assert "please report it" in result.stdout
    assert main_py.read_bytes() == before


def test_the_diff_is_printed_to_a_terminal_without_unicode(tmp_path: Path) -> None:
    file = service_with(tmp_path, LIFESPAN)
    result = wire(file, "--diff", PYTHONIOENCODING="ascii")
    assert result.returncode == WIRED
    assert "\\u2014" in result.stdout


def test_the_rest_of_a_long_file_stays_as_it_is(main_py: Path) -> None:
    head, app, tail = main_py.read_text().partition("app = FastAPI")
    routes = "".join(
        f'\n\n@router.get("/{i}")\ndef route_{i}():\n    return """a\n  {i}"""\n'
        for i in range(4000)
    )
    main_py.write_text(f"{head}{routes}\n\n{app}{tail}")
    before = main_py.read_bytes()
    assert before.count(b"\n") > 20_000
    assert wire(main_py).returncode == WIRED
    assert wire(main_py, "--remove").returncode == WIRED
    assert main_py.read_bytes() == before


def test_the_program_needs_only_the_standard_library(main_py: Path) -> None:
    result = run(
        sys.executable, "-I", "-S", PROGRAM, main_py, "--service=billing", cwd=TEMPLATE
    )
    assert "is wired" in result.stdout


def test_the_help_fits_on_a_screen() -> None:
    result = run(sys.executable, PROGRAM, "--help", cwd=TEMPLATE)
    assert len(result.stdout.splitlines()) < 30


ALONE = "from fastapi import FastAPI\n\napp = FastAPI()\n"
AS_A_FILE, AS_A_PACKAGE = "\nfrom workers.", "\nfrom .workers."


def started_by(folder: Path, files: dict[str, str], name: str = "main.py") -> Path:
    """An app that imports nothing of its own, and the files that may start it."""
    file = service_with(folder, ALONE).rename(folder / "app" / "billing" / name)
    (file.parent / "__init__.py").touch()
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return file


def wire_here(file: Path) -> str:
    result = run_program(file, "--service=billing")
    assert result.status == WIRED, result.text
    return result.text


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("start.sh", "cd app/billing\nexec gunicorn -k x \\\n    main:app\n"),
        ("start.sh", "cd app/billing\nexport APP_MODULE=main:app\n"),
        ("start.sh", "cd app/billing\nuv run --no-dev main.py\n"),
        ("start.sh", "uv run python -u -X dev app/billing/main.py\n"),
        ("start.sh", 'cd billing; python "${BASE}/main.py"\n'),
        ("start.sh", "cd billing\nuv run -m main\n"),
        ("start.bat", "cd billing\n.venv\\Scripts\\python.exe main.py\n"),
        ("Dockerfile", 'WORKDIR billing\nENTRYPOINT ["python"]\nCMD ["main.py"]\n'),
        (".vscode/launch.json", '"uvicorn",\n"cwd": "billing",\n"args": ["main:app"]'),
        ("app/billing/test_main.py", "from main import app\n"),
        ("app/billing/test_main.py", "import main as service\n"),
    ],
)
def test_a_start_as_a_file_is_found(tmp_path: Path, path: str, text: str) -> None:
    file = started_by(tmp_path, {path: text})
    shown = wire_here(file)
    assert AS_A_FILE in file.read_text()
    assert os.path.relpath(tmp_path / path, file.parent) in shown


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("Makefile", "lint:\n\tuv run --frozen mypy app/billing/main.py\n"),
        ("Makefile", "lint:\n\tpython -m mypy app/billing/main.py\n"),
        ("Makefile", "run:\n\tcd app/billing && python test-main.py\n"),
        ("release.sh", "git commit -m 'main' app/billing\n"),
        ("compose.yml", "image: main:latest\ncontainer_name: billing\n"),
        ("compose.yml", "billing:\n  cache_from:\n    - main:latest\n"),
        ("README.md", "How billing is released: push\nfrom main to production.\n"),
        ("README.md", "Before billing is released,\nimport main into a branch.\n"),
        ("scripts/tool", "\0uvicorn main:app in billing\n"),
        pytest.param(
            *("data.json", "billing " + "fastapi run " * 16_000 + "main.py\n"),
            id="a long line of data",
        ),
    ],
)
def test_other_text_is_not_taken_for_a_start(
    tmp_path: Path, path: str, text: str
) -> None:
    file = started_by(tmp_path, {path: text})
    assert "No file shows how it is started" in wire_here(file)
    assert AS_A_PACKAGE in file.read_text()


@pytest.mark.parametrize(
    ("path", "text", "note"),
    [
        (
            "Makefile",
            "\tfastapi dev app/billing/main.py\n",
            "starts fastapi dev {file}",
        ),
        ("Dockerfile", 'CMD ["fastapi", "run", "{file}"]', "starts fastapi run {file}"),
        (
            "README.md",
            "    uvicorn app.billing.main:app\n",
            "names app.billing.main:app",
        ),
        ("README", "    python app/billing/main.py\n", "names {file}"),
        ("tests/test_app.py", "from app.billing.main import app\n", "names {module}"),
        ("Procfile", "web: python -m app.billing.main\n", "starts {module}"),
    ],
)
def test_the_note_quotes_what_stands_in_the_file(
    tmp_path: Path, path: str, text: str, note: str
) -> None:
    words = {"file": "app/billing/main.py", "module": "app.billing.main"}
    file = started_by(tmp_path, {path: text.replace("{file}", words["file"])})
    expected = f"The import fits ../../{path}, which {note.format(**words)}."
    assert expected in wire_here(file)


def test_the_note_about_a_relative_import_names_where_it_does_not_work(
    tmp_path: Path,
) -> None:
    words = "does not work with fastapi run or fastapi dev: billing has no __init__.py"
    package = started_by(tmp_path / "package", {})
    folder = started_by(tmp_path / "folder", {})
    folder.with_name("__init__.py").unlink()
    script = started_by(tmp_path / "script", {"app/billing/Procfile": ""})
    script.with_name("__init__.py").unlink()

    assert words in wire_here(folder)
    assert words not in wire_here(package)
    assert words not in wire_here(script)
    assert AS_A_PACKAGE in folder.read_text()
    assert AS_A_FILE in script.read_text()


def test_a_folder_or_file_that_cannot_be_read_is_skipped(tmp_path: Path) -> None:
    start = "exec python app/billing/main.py\n"
    file = started_by(tmp_path, {"bin/start": start})
    too_long = "x" * 300  # Nobody can follow these links, not even root.
    (tmp_path / "scripts").symlink_to(too_long)
    (tmp_path / "bin" / "a.sh").symlink_to(too_long)
    (tmp_path / "bin" / "b.sh").symlink_to("/proc/self/mem")
    assert "starts app/billing/main.py" in wire_here(file)


def test_only_the_first_part_of_a_huge_file_is_read(tmp_path: Path) -> None:
    start = "exec python app/billing/main.py\n"
    file = started_by(tmp_path, {"data.json": "", "start.sh": start})
    os.truncate(tmp_path / "data.json", 2**33)
    result = wire(file, preexec_fn=little_memory)
    assert "starts app/billing/main.py" in result.stdout, result.stderr


def little_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))


def test_the_folders_of_the_machine_are_not_searched() -> None:
    folders = program.started.folders_of_repository
    assert folders(Path("/no_such/app")) == [Path("/no_such/app"), Path("/no_such")]
    assert folders(Path("/")) == []
