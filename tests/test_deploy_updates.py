"""Updates bring and change the files of a deployment, and keep the team's own files."""

import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from copier import run_copy, run_update
from copier.errors import TaskError

from .edits import change_answers
from .releases import commit_all, read_files
from .support import PROGRAM, commit, copy, run

pytestmark = pytest.mark.xdist_group("deploy")

AZURE = "azure-container-apps"
ANSWERS = ".copier-answers.yml"
THEIRS = "FROM python:3.12\n"


@pytest.fixture(scope="module")
def releases(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree as v0.1.0, and v0.2.0 with another Python and another processor."""
    folder = tmp_path_factory.mktemp("releases") / "template"
    shutil.copytree(released, folder)
    for name, old, new in (
        ("Dockerfile", "ARG PYTHON=3.13", "ARG PYTHON=3.14"),
        ("main.bicep", "cpu: json('0.5')", "cpu: json('0.75')"),
    ):
        (path,) = (folder / "template").glob(f"*/{name}.jinja")
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
    commit_all(folder)
    run("git", "tag", "v0.2.0", cwd=folder)
    return folder


@pytest.fixture
def make(tmp_path: Path, releases: Path) -> Callable[..., tuple[Path, Path]]:
    """Renders v0.1.0; returns the repository's root and the project in it."""

    def make(scope: str, **answers: object) -> tuple[Path, Path]:
        root = tmp_path / "backend"
        project = root if scope == "backend" else root / "app" / "billing"
        project.mkdir(parents=True)
        if scope == "service":
            (root / "pyproject.toml").touch()
        run_copy(
            str(releases),
            project,
            data={"scope": scope, "service": "billing", **answers},
            vcs_ref="v0.1.0",
            defaults=True,
            unsafe=True,
            quiet=True,
        )
        commit(root)
        return root, project

    return make


def update(project: Path, release: str = "v0.2.0", **answers: object) -> None:
    run_update(
        project,
        data=answers,
        vcs_ref=release,
        defaults=True,
        overwrite=True,
        unsafe=True,
        quiet=True,
    )


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_edits_are_merged_and_deleted_files_do_not_come_back(
    make: Callable[..., tuple[Path, Path]],
) -> None:
    root, project = make("backend", deploy=AZURE)
    dockerfile, main = root / "Dockerfile", root / "deploy" / "main.bicep"
    edit(dockerfile, "EXPOSE 8000\n", "EXPOSE 8000\nENV LANG=C.UTF-8\n")
    edit(main, "var graceSeconds = 30", "var graceSeconds = 120")
    (root / "deploy" / "environment.bicep").unlink()
    commit_all(root)
    before = read_files(root).keys()

    update(project)

    assert "ARG PYTHON=3.14" in dockerfile.read_text()
    assert "ENV LANG=C.UTF-8" in dockerfile.read_text()
    assert "cpu: json('0.75')" in main.read_text()
    assert "var graceSeconds = 120" in main.read_text()
    assert read_files(root).keys() == before
    assert "<<<<<<<" not in dockerfile.read_text() + main.read_text()


@pytest.mark.parametrize("program", ["copier", "chancy-workers"])
def test_the_team_s_dockerfile_stays_and_the_template_s_goes_into_deploy(
    program: str,
    make: Callable[..., tuple[Path, Path]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    root, _ = make("backend")
    (root / "Dockerfile").write_text(THEIRS)
    commit_all(root)

    if program == "copier":
        update(root, "v0.1.0", deploy=AZURE)
        printed = capfd.readouterr().out
    else:
        change_answers(root, deploy=AZURE)
        commit_all(root)
        printed = run(PROGRAM, "update", cwd=root).stdout
    assert "at the root stay as they are; the template's are in deploy/" in printed
    assert "such as main.py, stay as they are: chancy-workers check" in printed
    commit_all(root)
    assert (root / "Dockerfile").read_text() == THEIRS
    assert yaml.safe_load((root / ANSWERS).read_text())["deploy_folder"] == "deploy"
    assert {path.name for path in (root / "deploy").iterdir()} >= {
        "Dockerfile",
        "Dockerfile.dockerignore",
        "compose.yaml",
        "main.bicep",
    }
    update(root)

    assert (root / "Dockerfile").read_text() == THEIRS
    assert "ARG PYTHON=3.14" in (root / "deploy" / "Dockerfile").read_text()
    assert (
        "dockerfile: deploy/Dockerfile"
        in (root / "deploy" / "compose.yaml").read_text()
    )


@pytest.mark.parametrize("scope", ["service", "backend"])
def test_answering_none_keeps_the_files_and_says_how_to_delete_them(
    scope: str,
    make: Callable[..., tuple[Path, Path]],
    capfd: pytest.CaptureFixture[str],
) -> None:
    root, project = make(scope)
    before = read_files(root)

    update(project, "v0.1.0", deploy=AZURE)
    commit_all(root)
    (project / "deploy" / "main.bicep").write_text("// Edited.\n")
    commit_all(root)
    capfd.readouterr()
    update(project, "v0.1.0", deploy="none")

    assert (project / "deploy" / "main.bicep").read_text() == "// Edited.\n"
    printed = capfd.readouterr().out
    (command,) = re.findall("when nothing needs them: (git rm .*)", printed)
    run(*shlex.split(command), cwd=project)
    assert read_files(root) == before


def test_a_file_that_would_be_overwritten_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    deploy = tmp_path / "app" / "billing" / "deploy"
    deploy.mkdir(parents=True)
    (deploy / "apps.bicep").touch()
    (deploy / "Dockerfile").write_text(THEIRS)

    result = copy("app/billing", "-d", f"deploy={AZURE}", cwd=tmp_path, check=False)

    assert result.returncode != 0
    assert result.stderr.splitlines()[-1].endswith(
        "deploy/Dockerfile exists already, written by you or left from an earlier answer: "
        "move it away (git mv), then answer deploy again"
    )
    there = [path.name for path in deploy.parent.rglob("*") if path.is_file()]
    assert sorted(there) == ["Dockerfile", "apps.bicep"]


def test_the_template_s_dockerfile_does_not_change_how_the_app_is_wired(
    tmp_path: Path,
) -> None:
    """The imports in the file with the app fit the start command of the team's files."""
    wired = []
    for answers in ([], ["-d", f"deploy={AZURE}"]):
        root = tmp_path / str(len(answers))
        (root / "app" / "billing").mkdir(parents=True)
        (root / "pyproject.toml").touch()
        (root / "app" / "billing" / "server.py").write_text(
            "from fastapi import FastAPI\n\napp = FastAPI()\n"
        )
        (root / "app" / "billing" / "Procfile").write_text("web: uvicorn server:app\n")
        printed = copy("app/billing", *answers, cwd=root).stderr
        wired.append((root / "app" / "billing" / "server.py").read_text())

    assert wired[0] == wired[1]
    assert "from workers.chancy_initialization import" in wired[0]
    # The lines for the probes' routes are complete.
    for line in (
        "from chancy_runtime.web import health_router",
        "from app.billing.workers.chancy_instance import get_chancy",
        "app.include_router(health_router(get_chancy))",
    ):
        assert f"    {line}\n" in printed


def test_a_folder_that_is_a_link_is_refused(
    make: Callable[..., tuple[Path, Path]], capfd: pytest.CaptureFixture[str]
) -> None:
    root, project = make("service", deploy=AZURE)
    (project / "deploy").rename(root / "deploy")
    (project / "deploy").symlink_to("../../deploy")
    commit_all(root)
    before = read_files(root)

    with pytest.raises(TaskError):
        update(project)

    assert "nothing is updated: deploy is a link to a folder" in capfd.readouterr().err
    assert read_files(root) == before
