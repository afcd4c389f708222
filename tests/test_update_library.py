"""`chancy-workers update` upgrades the library with the pattern, or prints the command."""

import os
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml
from chancy_workers.answers import Project
from chancy_workers.library import pin_of, url_of

from . import edits
from .releases import (
    INSTANCE,
    NEXT,
    OLDEST_AND_NEWEST,
    WORKING_TREE,
    commit_all,
    make_next_release,
    read_files,
    update,
)
from .shared import Shared
from .support import PROGRAM, commit, copy, environment, run
from .updates import make_backend

BILLING = "app/billing"
PYPROJECT = """\
[project]
name = "backend"
version = "1"
requires-python = ">=3.11"
dependencies = [
    "fastapi>=0.112.2",
    {dependency},
]

[tool.uv]
package = false
"""
SOURCES = """
[tool.uv.sources]
# Ours: raised by chancy-workers update.
chancy-runtime = {{ git = "{url}", subdirectory = "runtime", tag = "{tag}" }}
"""


@pytest.fixture(scope="session")
def whole_release(shared: Shared) -> Path:
    """The template with a next release and with the library, which uv builds from it."""
    return shared.folder(
        "whole release/template", lambda folder: make_next_release(folder, without=())
    )


@pytest.fixture
def root(whole_release: Path, shared: Shared, tmp_path: Path) -> Path:
    """A committed backend with one service of the working tree."""

    def make(root: Path) -> None:
        root.mkdir()
        (root / "pyproject.toml").touch()
        copy(BILLING, f"--vcs-ref={WORKING_TREE}", cwd=root, template=whole_release)
        commit(root)

    rendered = shared.folder("of the whole release/backend", make)
    return Path(shutil.copytree(rendered, tmp_path / "backend"))


def write_pyproject(root: Path, template: Path) -> None:
    text = PYPROJECT.format(dependency='"chancy-runtime[fastapi,sentry]>=0.5,<1"')
    text += SOURCES.format(url=f"file://{template}", tag=WORKING_TREE)
    (root / "pyproject.toml").write_text(text)
    commit_all(root)


def test_pyproject_and_lock_are_upgraded_in_one_change(
    root: Path, whole_release: Path
) -> None:
    write_pyproject(root, whole_release)
    run("uv", "lock", cwd=root)
    commit_all(root)
    before = (root / "pyproject.toml").read_text()

    printed = run(PROGRAM, "update", cwd=root).stdout

    assert f"upgraded chancy-runtime to {NEXT} in pyproject.toml and uv.lock" in printed
    assert (root / "pyproject.toml").read_text() == before.replace(WORKING_TREE, NEXT)
    commit_of_next = run("git", "rev-parse", NEXT, cwd=whole_release).stdout.strip()
    packages = tomllib.loads((root / "uv.lock").read_text())["package"]
    (library,) = [each for each in packages if each["name"] == "chancy-runtime"]
    assert commit_of_next in library["source"]["git"]
    run("uv", "lock", "--check", cwd=root)
    commit_all(root)
    assert "chancy-runtime" not in run(PROGRAM, "update", cwd=root).stdout
    assert run("git", "status", "--porcelain", cwd=root).stdout == ""


def test_a_direct_reference_is_also_upgraded(root: Path, whole_release: Path) -> None:
    place = f"git+file://{whole_release}@{WORKING_TREE}#subdirectory=runtime"
    dependency = f'"chancy-runtime[fastapi,sentry] @ {place}"'
    (root / "pyproject.toml").write_text(PYPROJECT.format(dependency=dependency))
    commit_all(root)

    printed = run(PROGRAM, "update", cwd=root).stdout

    assert f"upgraded chancy-runtime to {NEXT} in pyproject.toml" in printed
    text = (root / "pyproject.toml").read_text()
    assert place.replace(WORKING_TREE, NEXT) in text
    assert not (root / "uv.lock").exists()


@pytest.mark.parametrize("way", ["fails", "no-uv", "dirty"])
def test_if_locking_fails_the_command_is_printed_and_the_service_is_updated(
    way: str, root: Path, whole_release: Path, tmp_path: Path
) -> None:
    write_pyproject(root, whole_release)
    (root / "uv.lock").write_text("version = 1\n" if way != "fails" else "no lock")
    commit_all(root)
    if way == "dirty":
        (root / "uv.lock").write_text("version = 1\n# Ours.\n")
    env = environment()
    if way == "no-uv":
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "git").symlink_to(shutil.which("git") or "")
        folders = [
            folder
            for folder in os.environ["PATH"].split(os.pathsep)
            if not (Path(folder) / "uv").exists()
        ]
        env = environment(PATH=os.pathsep.join([str(tmp_path / "bin"), *folders]))
    before = read_files(root)

    printed = run(PROGRAM, "update", cwd=root, env=env).stdout

    reason = {
        "fails": "were not changed, because uv lock failed (",
        "no-uv": "were not changed, because uv lock failed (uv is not installed)",
        "dirty": "pyproject.toml and uv.lock had uncommitted changes and were not",
    }[way]
    assert reason in printed
    assert (
        f"upgrade the library yourself: uv add --tag {NEXT} "
        '"chancy-runtime[fastapi,sentry] @ '
        f'git+file://localhost{whole_release}#subdirectory=runtime"' in printed
    )
    after = read_files(root)
    for name in ("pyproject.toml", "uv.lock"):
        assert after[name] == before[name]
    assert b"as the next release" in after[f"{BILLING}/{INSTANCE}"]


@pytest.mark.parametrize(
    ("files", "line"),
    [
        ({}, 'add the library: uv add --tag {next} "chancy-runtime[fastapi,sentry] @'),
        (
            {"poetry.lock": "", "pyproject.toml": "[tool.poetry]\nname = 'b'\n"},
            'add the library: poetry add "git+file://localhost{template}@{next}',
        ),
        (
            {"requirements.txt": "chancy-runtime==0.4.0\n"},
            "upgrade the library: write chancy-runtime[fastapi,sentry] @ git+",
        ),
    ],
    ids=["uv", "poetry", "pip"],
)
def test_if_nothing_can_be_upgraded_the_command_of_the_tool_is_printed(
    files: dict[str, str], line: str, root: Path, whole_release: Path
) -> None:
    for name, text in files.items():
        (root / name).write_text(text)
    commit_all(root)
    before = read_files(root)

    printed = run(PROGRAM, "update", cwd=root).stdout

    assert line.format(next=NEXT, template=whole_release) in printed
    changed = {name for name, text in read_files(root).items() if before[name] != text}
    assert changed == {f"{BILLING}/.copier-answers.yml", f"{BILLING}/{INSTANCE}"}


@pytest.mark.parametrize(
    ("source", "url"),
    [
        ("gh:acme/workers", "https://github.com/acme/workers.git"),
        ("gl:acme/workers.git", "https://gitlab.com/acme/workers.git"),
        ("git@e.com:acme/workers.git", "ssh://git@e.com/acme/workers.git"),
        ("git+https://me:token@e.com/w.git", "https://e.com/w.git"),
        ("https://e.com/w.git?private_token=x", "https://e.com/w.git"),
        ("ssh://git:secret@e.com/w.git", "ssh://git@e.com/w.git"),
        ("git+file:///srv/w.git", "file://localhost/srv/w.git"),
        ("/srv/w", "file://localhost/srv/w"),
    ],
)
def test_the_template_s_url_is_printed_in_the_form_for_installers(
    source: str, url: str
) -> None:
    assert url_of(source) == url


def test_a_commit_without_a_tag_is_pinned_by_its_full_hash(
    root: Path, whole_release: Path
) -> None:
    head = run("git", "rev-parse", "HEAD", cwd=whole_release).stdout.strip()
    file = root / BILLING / ".copier-answers.yml"
    answers = yaml.safe_load(file.read_text())

    pin = pin_of(Project(file, {**answers, "_commit": f"v1.0.0-3-g{head[:8]}"}))

    assert pin.requirement.endswith(f"{whole_release}@{head}#subdirectory=runtime")


def test_the_index_of_the_answers_is_in_the_command(root: Path) -> None:
    file = root / BILLING / ".copier-answers.yml"
    answers = yaml.safe_load(file.read_text())
    index = "https://packages.example.com/simple"

    pin = pin_of(Project(file, {**answers, "runtime": "index", "runtime_index": index}))

    assert pin.uv == (
        f"uv add --index chancy-runtime={index} --upgrade-package chancy-runtime "
        '"chancy-runtime[fastapi,sentry]>=0.8,<1"'
    )


@pytest.mark.parametrize("release", OLDEST_AND_NEWEST)
def test_an_edited_module_stays_and_the_replacement_of_the_edit_is_printed(
    release: str, template: Path, tmp_path: Path
) -> None:
    project = make_backend(tmp_path / "backend", "service", template, release)
    workers = project / "workers"
    machinery = {path.name for path in workers.glob("chancy_*.py")}
    edits.reformat(project, 140)
    for name in ("chancy_sentry.py", "tests/test_chancy_cron.py"):
        edits.add_line(project, f"workers/{name}")
    commit_all(tmp_path / "backend")

    printed = update(project)

    left = {path.name for path in workers.glob("chancy_*.py")}
    assert left - {"chancy_initialization.py", "chancy_instance.py"} == {
        "chancy_sentry.py"
    }
    assert len(machinery) > 5
    assert [path.name for path in workers.glob("tests/test_chancy_*.py")] == [
        "test_chancy_cron.py"
    ]
    assert "put a subclass of SentryPlugin into plugins=[…], then delete" in printed
    assert "tests/test_chancy_cron.py, which stays because you edited it" in printed
    assert printed.count(", which stays because you edited it") == 2


@pytest.mark.parametrize("release", OLDEST_AND_NEWEST)
def test_a_team_s_additions_do_not_conflict_with_the_new_imports(
    release: str, template: Path, tmp_path: Path
) -> None:
    root = tmp_path / "backend"
    project = make_backend(root, "service", template, release)
    path = project / "workers" / "chancy_initialization.py"
    rendered = path.read_text()
    for old, new in (
        ("import logging\n", "import logging\nimport os\n"),
        (
            "from .chancy_cron import",
            "from .archive.worker import old\nfrom .chancy_cron import",
        ),
        ("\nfrom .chancy_", "\nfrom app.config import NAMES\n\nfrom .chancy_"),
        ("\n]\n", '\n    Queue("mail", executor=Chancy.Executor.Async),\n]\n'),
        ("= Settings()", "= Settings(max_connections=7)"),
    ):
        text = rendered.replace(old, new, 1)
        assert text != rendered or release == "v0.1.0"
        path.write_text(text)
        commit_all(root)

        update(project)

        merged = path.read_text()
        assert "<<<<<<<" not in merged, merged
        assert ".chancy_cron" not in merged and "from chancy_runtime import (" in merged
        for line in set(text.splitlines()) - set(rendered.splitlines()):
            assert f"{line}\n" in merged
        assert run("git", "ls-files", "--unmerged", cwd=root).stdout == ""
        run("git", "checkout", "-q", "--", ".", cwd=root)
        run("git", "clean", "-fdq", cwd=root)


def test_imports_are_switched_even_if_the_workers_init_file_is_missing(
    template: Path, tmp_path: Path
) -> None:
    root = tmp_path / "backend"
    service = make_backend(root, "service", template, "v0.4.1")
    (service / "workers" / "__init__.py").unlink()
    (service / "models.py").write_text(
        "from .workers.chancy_errors import WorkersError\n"
    )
    commit_all(root)

    printed = run(PROGRAM, "update", cwd=root, check=False).stdout

    models = (service / "models.py").read_text()
    assert models == "from chancy_runtime import WorkersError\n", printed
    assert f"{BILLING}/models.py" in printed
    assert "library: uv add" in printed
