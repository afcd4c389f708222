"""`chancy-workers check` reports what is wrong with a service, and nothing else."""

import os
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from alembic import command
from alembic.config import Config
from chancy_workers.answers import Project
from chancy_workers.in_the_way import PACKAGES, PYTHON, in_the_way
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from .releases import NEXT, RELEASES, WORKING_TREE, commit_all
from .shared import Shared
from .support import (
    GIT,
    PROGRAM,
    TEMPLATE,
    check,
    commit,
    copy,
    database,
    environment,
    migrate,
    run,
)

WORKERS = "app/billing/workers"
ANSWERS = ".copier-answers.yml"


@pytest.fixture(scope="session")
def two_services(template: Path, shared: Shared) -> Path:
    """A rendered backend with billing, and a second service."""

    def make(root: Path) -> None:
        version = f"--vcs-ref={WORKING_TREE}"
        backend = ("--data=scope=backend", "--data=service=billing")
        copy(root, version, *backend, cwd=root.parent, template=template)
        copy("app/shipping", version, cwd=root, template=template)
        commit(root)

    return shared.folder("two services/backend", make)


@pytest.fixture
def root(two_services: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(two_services, tmp_path / "backend"))


def add_line(path: Path, line: str) -> None:
    path.write_text(f"{path.read_text()}{line}\n")


def replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def lock(root: Path, version: str) -> None:
    (root / "uv.lock").write_text(
        f'[[package]]\nname = "chancy-runtime"\nversion = "{version}"\n'
    )


def lock_an_older_library(root: Path) -> None:
    (root / "poetry.lock").write_bytes(b"\xe9")
    lock(root, "0.4.9")


def pin_an_older_library(root: Path) -> None:
    (root / "requirements.txt").write_text(
        "chancy-runtime[fastapi] @ git+https://e.com/t.git@v0.4.0#subdirectory=runtime\n"
    )


def remove_the_library(root: Path) -> None:
    pyproject = root / "pyproject.toml"
    lines = pyproject.read_text().splitlines(keepends=True)
    pyproject.write_text(
        "".join(line for line in lines if "chancy-runtime" not in line)
    )


def lose_main(root: Path) -> None:
    (root / "app/billing/main.py").unlink()
    (root / "app/billing/mail.py").write_bytes(b"E = '\xe9'\n")


def ignore_the_answers(root: Path) -> None:
    run("git", "rm", "-q", "--cached", ANSWERS, cwd=root)
    add_line(root / ".gitignore", ".copier*")


def ignore_the_job(root: Path) -> None:
    """Makes git ignore the job's files, which it never tracked."""
    (root / ".gitignore").write_text("/.venv\n*digest*\n")
    shutil.rmtree(root / ".git")
    commit(root)


def test_a_backend_without_problems_is_current_and_whole(root: Path) -> None:
    lock(root, "0.8.3")
    run(
        *(sys.executable, "-m", "ruff", "format", "--isolated", "--line-length=120"),
        *("--no-cache", "app/shipping"),
        cwd=root,
    )

    assert check(root) == []
    assert (
        run(PROGRAM, "check", cwd=root).stdout == "2 services are current and whole\n"
    )


def add_alembic(root: Path) -> Path:
    """Adds the files of `alembic init`, with models; returns its env.py."""
    command.init(Config(str(root / "alembic.ini")), str(root / "migrations"))
    env = root / "migrations" / "env.py"
    replace(env, "target_metadata = None", "target_metadata = Base.metadata")
    return env


BROKEN: dict[str, tuple[Callable[[Path], object], str, str, str]] = {
    "missing": (
        lambda root: (root / WORKERS / "chancy_instance.py").unlink(),
        f"{WORKERS}/chancy_instance.py",
        "is missing",
        f"git checkout HEAD -- {WORKERS}/chancy_instance.py",
    ),
    "old-import": (
        lambda root: replace(
            root / WORKERS / "send_digest/worker.py",
            "from chancy_runtime import job\n",
            "from chancy_runtime import job\n\n"
            "from ..chancy_errors import WorkersError as WorkersError\n",
        ),
        f"{WORKERS}/send_digest/worker.py",
        "from ..chancy_errors import WorkersError as WorkersError no longer works",
        "write from chancy_runtime import WorkersError",
    ),
    "queue-without-worker": (
        lambda root: replace(
            root / WORKERS / "chancy_initialization.py",
            "        concurrency=100,\n",
            '        concurrency=100,\n        tags={"^heavy$"},\n',
        ),
        f"{WORKERS}/chancy_initialization.py",
        "no worker takes the queue default (its tags are ^heavy$)",
        "give a worker one of the tags, or remove them from the queue",
    ),
    "not-wired": (
        lambda root: (root / "app/billing/main.py").write_text(
            "from fastapi import FastAPI\n\napp = FastAPI()\n"
        ),
        "app/billing/main.py",
        "starts no workers",
        "chancy-workers wire --service billing app/billing/main.py",
    ),
    "no-main": (
        lose_main,
        "app/billing/main.py",
        "starts no workers",
        "in the answer main",
    ),
    "app-elsewhere": (
        lambda root: [
            (root / "app/billing/main.py").write_text("print('Hello')\n"),
            (root / "app/billing/server.py").write_text(
                "from fastapi import FastAPI\n\napp = FastAPI()\n"
            ),
        ],
        "app/billing/main.py",
        "starts no workers",
        "name the file with the app, perhaps app/billing/server.py, in the answer main",
    ),
    "second-app": (
        lambda root: (root / "app/billing/server.py").write_text(
            "from fastapi import FastAPI\n\napp = FastAPI()\n"
        ),
        "app/billing/server.py",
        "has an app that starts no workers, beside the app that the template wrote",
        "chancy-workers wire --service billing app/billing/server.py, then git rm app",
    ),
    "ignored": (
        ignore_the_job,
        f"{WORKERS}/send_digest/__init__.py",
        f"git ignores {WORKERS}/send_digest/__init__.py {WORKERS}/send_digest/worker.py "
        f"{WORKERS}/tests/test_job_send_digest.py (.gitignore:2 has *digest*), so clones",
        f"git add -f {WORKERS}/send_digest/__init__.py",
    ),
    "ignored-answers": (
        ignore_the_answers,
        ANSWERS,
        "git ignores .copier-answers.yml (.gitignore:6 has .copier*), so clones",
        "git add -f .copier-answers.yml, or narrow that line",
    ),
    "conflict": (
        lambda root: add_line(
            root / WORKERS / "chancy_initialization.py", "<<<<<<< before updating"
        ),
        f"{WORKERS}/chancy_initialization.py",
        "has a conflict from an update",
        "git add",
    ),
    "job-without-file": (
        lambda root: (root / WORKERS / "send_digest/worker.py").unlink(),
        ANSWERS,
        "the job send_digest is in the answers, but workers/send_digest/worker.py",
        "chancy-workers update app/billing",
    ),
    "file-without-job": (
        lambda root: [
            shutil.copytree(root / WORKERS / "send_digest", root / WORKERS / "report"),
            (root / WORKERS / "tests" / "test_job_report.py").write_text(""),
        ],
        f"{WORKERS}/report/worker.py",
        "the job report is not registered",
        "chancy-workers add-job app/billing report, or git rm -r "
        f"{WORKERS}/report {WORKERS}/tests/test_job_report.py",
    ),
    "job-without-queue": (
        lambda root: replace(
            root / WORKERS / "send_digest/worker.py", '"default"', '"slow"'
        ),
        f"{WORKERS}/send_digest/worker.py",
        "the queue slow is not declared",
        "chancy-workers update app/billing",
    ),
    "job-without-queue-over-lines": (
        lambda root: replace(
            root / WORKERS / "send_digest/worker.py",
            '@job(queue="default")',
            '@job(\n    queue="slow",\n)',
        ),
        f"{WORKERS}/send_digest/worker.py",
        "the queue slow is not declared",
        "chancy-workers update app/billing",
    ),
    "older-library": (
        lock_an_older_library,
        "uv.lock",
        "chancy-runtime 0.4.9 is older than 0.8, which the workers need",
        "chancy-workers update app/billing",
    ),
    "older-pin": (
        pin_an_older_library,
        "requirements.txt",
        "chancy-runtime 0.4.0 is older than 0.8",
        "chancy-workers update app/billing",
    ),
    "no-library": (
        remove_the_library,
        ANSWERS,
        "chancy-runtime is not among the dependencies",
        'uv add --tag v99.0.0 "chancy-runtime[fastapi,sentry] @ git+file://localhost/',
    ),
    "answers": (
        lambda root: replace(root / ANSWERS, "sentry: true", "sentry: false"),
        ANSWERS,
        "the answers were edited by hand",
        "chancy-workers update app/billing",
    ),
    "no-jobs": (
        lambda root: replace(root / ANSWERS, "jobs:\n", "jobs: 5\nothers:\n"),
        ANSWERS,
        "the answers were edited by hand",
        "chancy-workers update app/billing",
    ),
    "alembic": (
        add_alembic,
        "migrations/env.py",
        "autogenerate drops Chancy's tables billing_*, which are not among the models",
        'include_object=include_object("billing_")',
    ),
    "unreadable": (
        lambda root: (root / ANSWERS).write_bytes(b"jobs: \xe9"),
        ANSWERS,
        "cannot be read",
        "git checkout HEAD -- .copier-answers.yml",
    ),
    "conflict-committed": (
        lambda root: add_line(root / ANSWERS, "<<<<<<< before updating"),
        ANSWERS,
        "cannot be read",
        'README, "Change the answers"',
    ),
    "template": (
        lambda root: replace(root / ANSWERS, "_src_path: /", "_src_path: /nowhere/"),
        ANSWERS,
        "the template cannot be read",
        "correct that first",
    ),
}


@pytest.mark.parametrize("name", list(BROKEN))
def test_each_problem_is_reported_with_its_place_and_a_way_to_correct_it(
    name: str, root: Path
) -> None:
    break_it, file, problem, mend = BROKEN[name]
    break_it(root)
    if name in ("answers", "no-jobs", "conflict-committed"):
        commit_all(root)

    everywhere = name in ("unreadable", "conflict-committed", "ignored-answers")
    findings = check(root, *([] if everywhere else ["app/billing"]))

    if name == "no-jobs":
        findings = [each for each in findings if "add-job" not in each["mend"]]
    of_billing = [each for each in findings if each["service"] != "app/shipping"]
    assert [each["file"] for each in of_billing] == [file]
    assert problem in of_billing[0]["problem"]
    assert mend in of_billing[0]["mend"]


def test_an_alembic_that_excludes_chancy_s_tables_is_not_reported(root: Path) -> None:
    env = add_alembic(root)
    replace(
        env,
        "connection=connection, ",
        'connection=connection, include_object=include_object("billing_"), ',
    )
    imported = "from chancy_runtime.alembic import include_object\n"
    env.write_text(f"{imported}{env.read_text()}")

    (finding,) = check(root)

    assert finding["service"] == "app/shipping"
    assert finding["mend"] == 'add "shipping_" to its arguments'
    replace(env, '"billing_"', '"billing_", "shipping_"')
    assert check(root) == []


def test_the_team_s_own_filter_is_a_notice_unless_it_may_call_the_library(
    root: Path,
) -> None:
    env = add_alembic(root)
    replace(
        env, "connection=connection, ", "connection=connection, include_object=ours, "
    )
    ours = "import ours\n\n\nours = ours.include_object\n"
    env.write_text(f"{ours}{env.read_text()}")

    assert check(root) == []
    printed = run(PROGRAM, "check", "app/billing", cwd=root).stdout
    assert "migrations/env.py" in printed
    assert ": notice: whether autogenerate" in printed
    (root / "app/tables.py").write_text("import chancy_runtime.alembic\n")
    assert "migrations" not in run(PROGRAM, "check", "app/billing", cwd=root).stdout


def test_a_queue_that_two_kinds_of_processes_take_is_a_notice(root: Path) -> None:
    """Tags that exist only at run time, such as hostname=…, are not an error."""
    file = root / WORKERS / "chancy_initialization.py"
    replace(
        file,
        "async with Worker(chancy, register_signal_handlers=False):",
        'async with Worker(chancy, tags={"light"}, process="api"), '
        'Worker(chancy, tags={"heavy"}, process="own"):',
    )
    replace(
        file,
        "QUEUES = [",
        'QUEUES = [Queue("light", tags={"^light$"}), Queue("heavy", tags={"^heavy$"}), '
        'Queue("there", tags={"hostname=web.*"}), Queue("all", tags={"^light$|heavy"}),',
    )

    assert check(root, "app/billing") == []
    printed = run(PROGRAM, "check", "app/billing", cwd=root).stdout
    found = [line for line in printed.splitlines() if "take the queue" in line]
    assert len(found) == 2
    assert "notice: workers in the API and in the workers' own process" in found[0]
    assert "take the queue all: if its jobs belong in one" in found[0]
    assert "take the queue default, which has no tags" in found[1]


def test_the_printed_command_brings_ignored_files_back_into_a_clone(
    root: Path, tmp_path: Path
) -> None:
    ignore_the_job(root)
    clone = tmp_path / "clone"
    run("git", "clone", "-q", root, clone, cwd=tmp_path)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"

    (finding,) = check(clone, "app/billing")
    command = finding["mend"].split(", or here uvx ")[1]
    run("sh", "-c", command, cwd=clone, env=environment(PATH=path))

    assert finding["problem"].startswith("is missing, and git ignores app/billing/")
    assert "(.gitignore:2 has" in finding["problem"]
    assert check(clone, "app/billing") == []
    added = run("git", "status", "--porcelain", cwd=clone).stdout.splitlines()
    assert [line[:2] for line in added] == ["A "] * 3


def test_a_job_whose_name_the_template_refuses_is_not_reported_as_unregistered(
    root: Path,
) -> None:
    """`adopt` leaves such jobs, and the answers cannot have them."""
    for name in ("test_mail", "list"):
        shutil.copytree(root / WORKERS / "send_digest", root / WORKERS / name)

    assert check(root, "app/billing") == []


def test_a_virtual_environment_in_a_service_s_folder_is_not_checked(
    root: Path,
) -> None:
    text = (
        "from app.billing.workers.chancy_errors import WorkersError\n"
        "<<<<<<< before updating\n"
    )
    for folder in (".venv", "env"):
        environment = root / "app" / "billing" / folder
        (environment / "lib").mkdir(parents=True)
        (environment / "pyvenv.cfg").touch()
        (environment / "lib" / "library.py").write_text(text)

    assert check(root, "app/billing") == []


@pytest.mark.parametrize(
    "imported",
    [
        "from .report.worker import send_digest",
        "from app.billing.workers.report.worker import send_digest",
        "from .report import (\n    send_digest,\n    worker,\n)",
    ],
)
@pytest.mark.parametrize("by", ["workers/chancy_initialization.py", "main.py"])
def test_a_job_that_other_code_imports_is_not_reported_as_unregistered(
    imported: str, by: str, root: Path
) -> None:
    shutil.copytree(root / WORKERS / "send_digest", root / WORKERS / "report")
    path = root / "app" / "billing" / by
    path.write_text(f"{path.read_text()}\n{imported}\n")

    assert check(root) == []


@pytest.mark.parametrize("declared", ['Queue(name="slow")', "Queue(SLOW)", "*OURS"])
def test_a_queue_that_is_declared_by_hand_counts(declared: str, root: Path) -> None:
    replace(root / WORKERS / "send_digest/worker.py", '"default"', '"slow"')
    path = root / WORKERS / "chancy_initialization.py"
    replace(path, "\nQUEUES = [\n", f"\nQUEUES = [\n    {declared},\n")

    assert check(root) == []


def test_for_a_job_that_is_not_rendered_yet_only_the_update_is_reported(
    root: Path,
) -> None:
    replace(root / ANSWERS, "jobs:\n", "jobs:\n- name: report\n")
    commit_all(root)

    (finding,) = check(root)

    assert finding["mend"] == "chancy-workers update app/billing"


def test_a_committed_conflict_in_the_history_of_the_answers_is_skipped(
    root: Path,
) -> None:
    """The answers also have a date, which JSON does not have."""
    path = root / ANSWERS
    whole = path.read_text()
    add_line(path, "<<<<<<< before updating")
    commit_all(root)
    path.write_text(whole.replace("jobs:\n", "jobs:\n- name: 2026-01-01\n"))
    commit_all(root)

    (finding,) = check(root, "app/billing")

    assert finding["mend"] == "chancy-workers update app/billing"


def test_for_jobs_that_two_branches_added_no_command_that_drops_one_is_printed(
    root: Path,
) -> None:
    run("git", "checkout", "-q", "-b", "other", cwd=root)
    replace(root / ANSWERS, "jobs:\n", "jobs:\n- name: theirs\n")
    commit_all(root)
    run("git", "checkout", "-q", "-", cwd=root)
    replace(root / ANSWERS, "jobs:\n", "jobs:\n- name: ours\n")
    commit_all(root)
    run(*GIT, "merge", "-q", "other", cwd=root, check=False)

    found = [each for each in check(root) if "cannot be read" in each["problem"]]

    mends = [each["mend"].partition(" (")[0] for each in found]
    assert mends == ["correct it by hand"]


def test_for_a_file_with_a_conflict_only_the_conflict_is_reported(root: Path) -> None:
    replace(root / WORKERS / "send_digest/worker.py", '"default"', '"slow"')
    path = root / WORKERS / "chancy_initialization.py"
    add_line(path, "<<<<<<< before updating")

    (finding,) = check(root)

    assert finding["problem"] == "has a conflict from an update"


def test_a_service_that_is_not_committed_yet_is_checked(root: Path) -> None:
    run("git", "rm", "-r", "-q", "--cached", "app/shipping", cwd=root)

    printed = run(PROGRAM, "check", cwd=root).stdout
    assert printed.endswith("\n2 services are whole\n")


def test_a_team_s_edits_of_its_own_files_are_not_reported(root: Path) -> None:
    tests = root / WORKERS / "tests"
    (tests / "test_workers.py").unlink()
    add_line(tests / "conftest.py", "\n\nOURS = 1")
    add_line(root / WORKERS / "chancy_instance.py", "\n\nOURS = 1")
    add_line(root / WORKERS / "__main__.py", "# Ours.")

    assert check(root) == []


def test_a_library_of_unknown_version_is_a_notice_and_not_an_error(
    root: Path,
) -> None:
    result = run(PROGRAM, "check", "app/shipping", cwd=root)

    notice, whole = result.stdout.splitlines()
    assert notice.startswith(
        "app/shipping/.copier-answers.yml:1: notice: could not determine which chancy-"
    )
    assert "need 0.8 or newer (uv add " in notice
    assert whole == "1 service is whole"
    annotated = run(
        PROGRAM, "check", "--format=github", "app/shipping", cwd=root
    ).stdout
    assert annotated.startswith(
        "::notice file=app/shipping/.copier-answers.yml,line=1,"
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("uv.lock", '[[package]]\nname = "chancy-runtime"\nversion = "0.8.0"\n'),
        ("poetry.lock", '[[package]]\nname = "chancy-runtime"\nversion = "0.8.1"\n'),
        ("requirements.txt", "chancy-runtime[fastapi,sentry]==0.8.2 --hash=sha256:0\n"),
        (
            "requirements-prod.txt",
            "chancy_runtime @ git+ssh://git@e.com/t.git@v0.8.0#subdirectory=runtime\n",
        ),
        (
            ".venv/lib/python3.11/site-packages/chancy_runtime-0.8.0.dist-info/METADATA",
            "",
        ),
    ],
)
def test_the_version_of_the_library_is_found_in_usual_files(
    name: str, text: str, root: Path
) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)

    assert run(PROGRAM, "check", cwd=root).stdout == (
        "2 services are current and whole\n"
    )


def test_printed_commands_are_quoted_for_a_shell(root: Path) -> None:
    """The folder has a space in its name."""
    (root / "our services").mkdir()
    (root / "app" / "shipping").rename(root / "our services" / "shipping")
    workers = root / "our services" / "shipping" / "workers"
    shutil.copytree(workers / "send_digest", workers / "report")
    commit_all(root)
    (workers / "chancy_instance.py").unlink()
    commit_all(root)

    missing, unregistered = check(root)
    run("sh", "-c", missing["mend"].split(", or ")[0], cwd=root)
    run("sh", "-c", unregistered["mend"].split(", or ")[1], cwd=root)

    assert check(root) == []


def test_a_conflict_is_found_in_every_rendered_file(root: Path) -> None:
    for name in ("README.md", "pyproject.toml", "app/observability.py"):
        (root / name).write_text("<<<<<<< before updating\n")

    found = [
        f"{each['file']}:{each['line']}"
        for each in check(root)
        if "conflict" in each["problem"]
    ]

    assert found == ["README.md:1", "app/observability.py:1", "pyproject.toml:1"]


def test_services_that_share_an_app_in_a_file_of_another_name_are_checked(
    template: Path, tmp_path: Path
) -> None:
    root = tmp_path / "backend"
    (root / "src" / "app").mkdir(parents=True)
    (root / "pyproject.toml").touch()
    server = root / "src" / "app" / "server.py"
    server.write_text("from fastapi import FastAPI\n\napp = FastAPI()\n")
    for name in ("billing", "shipping"):
        options = (f"--vcs-ref={WORKING_TREE}", "--data=main=../server.py")
        copy(f"src/app/{name}", *options, cwd=root, template=template)
    commit(root)
    assert check(root) == []

    server.write_text("from fastapi import FastAPI\n\napp = FastAPI()\n")
    for finding in check(root):
        command = finding["mend"].split(", or ")[0].removeprefix("chancy-workers ")
        run(PROGRAM, *command.split(), cwd=root)
    assert check(root) == []


def test_the_newer_releases_are_listed_with_their_changes(
    template: Path, tmp_path: Path
) -> None:
    root = tmp_path / "backend"
    copy(
        *(root, "--vcs-ref=v0.1.0", "--data=scope=backend"),
        cwd=tmp_path,
        template=template,
    )
    commit(root)

    (finding,) = check(root, "--strict")

    assert finding["problem"].startswith(
        "v0.1.0 is behind v0.2.0 (Workers that survive:"
    )
    for release in [*RELEASES][1:]:
        assert release in finding["problem"]
    assert finding["mend"] == "chancy-workers update app/billing"


def test_another_app_beside_the_team_s_own_app_is_a_notice(root: Path) -> None:
    """It may be a script, a test or a mounted part, which only the team knows."""
    add_line(root / "app/billing/main.py", "\nOURS = 1")
    (root / "app/billing/server.py").write_text(
        "from fastapi import FastAPI\n\napp = FastAPI()\n"
    )

    assert check(root) == []
    lines = run(PROGRAM, "check", "app/billing", cwd=root).stdout.splitlines()
    assert lines[0].startswith(
        "app/billing/server.py:3: notice: has an app that starts no workers: if the"
    )

    add_line(root / "app/billing/main.py", "from . import server")
    lines = run(PROGRAM, "check", "app/billing", cwd=root).stdout.splitlines()
    assert "server.py" not in lines[0]


@pytest.mark.parametrize(
    ("name", "text", "reasons"),
    [
        (
            "pyproject.toml",
            '[project]\nrequires-python = ">=3.9"',
            ["requires-python is"],
        ),
        ("pyproject.toml", '[project]\nrequires-python = ">3.10.99"', []),
        ("pyproject.toml", '[project]\nrequires-python = "==3.12.*"', []),
        (
            "pyproject.toml",
            '[tool.poetry.dependencies]\npython = "^3.10"\nfastapi = "^0.110"',
            ["python is ^3.10, but", "fastapi<0.111,>=0.110 allows"],
        ),
        (
            "pyproject.toml",
            '[tool.poetry.dependencies]\npython = "~3.11"\nfastapi = "*"\nrich = "13"',
            [],
        ),
        (
            "pyproject.toml",
            '[project]\ndependencies = ["FastAPI<0.112", "psycopg[binary]~=3.2", '
            "\"psycopg<3; python_version < '3.8'\"]\n"
            '[dependency-groups]\ndev = ["chancy==0.25.1", {include-group = "x"}]',
            ["FastAPI<0.112 allows no version", "chancy==0.25.1 allows no"],
        ),
        (
            "pyproject.toml",
            '[project]\ndependencies = ["psycopg<3.3", "fastapi>=0.100,<0.113"]\n'
            '[tool.uv]\nconstraint-dependencies = ["sentry-sdk<2"]',
            ["psycopg<3.3 allows no version", "sentry-sdk<2 allows"],
        ),
        (
            "requirements.txt",
            "-r base.txt\nfastapi==0.95.0 \\\n    --hash=sha256:0\npsycopg==3.3.7 # x\n",
            ["fastapi==0.95.0 allows no version of fastapi"],
        ),
        (
            "requirements.txt",
            "fastapi==0.95.0\nchancy-runtime @ file:///srv/runtime\n",
            [],  # The library is already a dependency.
        ),
        (
            ".python-version",
            "# Ours\n3.10.4\n",
            ["the backend's Python is 3.10.4, and"],
        ),
        (".python-version", "cpython-3.12\n", []),
        (
            "pyvenv.cfg",
            "home = /usr/lib/python3.9/bin\nversion_info = 3.10.1.final.0\n",
            ["the backend's Python is 3.10.1.final.0, and"],
        ),
        ("pyvenv.cfg", "home = /opt/3.9\nversion = 3.11.2\n", []),
    ],
)
def test_requirements_that_prevent_the_library_s_installation_are_reported(
    name: str, text: str, reasons: list[str], tmp_path: Path
) -> None:
    root = tmp_path / "monorepo"
    (root / "backend/app/billing").mkdir(parents=True)
    # Another project above the backend.
    (root / "pyproject.toml").write_text('[project]\nrequires-python = ">=3.8"')
    commit(root)
    folder = root / "backend" / (".venv" if name == "pyvenv.cfg" else "")
    folder.mkdir(exist_ok=True)
    (root / "backend" / "pyproject.toml").write_text("[project]")
    (folder / name).write_text(text)
    answers = {"scope": "service", "service": "billing"}
    project = Project(root / "backend/app/billing" / ANSWERS, answers)

    found = [*in_the_way(project)]

    if name == "requirements.txt" and not reasons:
        assert found == []
        return
    assert [file.name for file, _, _ in found] == [name] * len(found)
    for (_, problem, _), reason in zip(found, reasons, strict=True):
        assert problem.startswith(reason)


def test_the_library_s_requirements_in_the_tools_match_its_pyproject() -> None:
    content = tomllib.loads((TEMPLATE / "runtime/pyproject.toml").read_text())
    project = content["project"]
    extras = project["optional-dependencies"]
    lists = [project["dependencies"], extras["fastapi"], extras["sentry"]]
    needed = [Requirement(each) for some in lists for each in some]
    message = (TEMPLATE / "questions/messages.jinja").read_text()

    assert {each.name: each.specifier for each in needed} == {
        name: SpecifierSet(range) for name, range in PACKAGES.items()
    }
    assert project["requires-python"] == PYTHON
    assert f"They need Python {PYTHON[2:]} or later" in message
    assert f"FastAPI {PACKAGES['fastapi'][2:]} or later" in message


def test_nothing_is_updated_where_the_library_cannot_be_installed(root: Path) -> None:
    remove_the_library(root)
    replace(
        root / "pyproject.toml",
        'requires-python = ">=3.11"',
        'requires-python = ">=3.9"',
    )
    commit_all(root)

    problems = [each["problem"] for each in check(root, "app/shipping")]
    updated = run(PROGRAM, "update", "app/shipping", cwd=root, check=False)

    assert problems[0].startswith("requires-python is >=3.9, but chancy-runtime needs")
    assert updated.returncode == 1
    assert "refused: pyproject.toml: requires-python is >=3.9" in updated.stdout
    assert run("git", "status", "--porcelain", cwd=root).stdout == ""


def test_a_new_release_of_the_template_does_not_make_pull_requests_fail(
    next_release: Path, tmp_path: Path
) -> None:
    """A service behind is only a notice; --strict makes it an error."""
    (tmp_path / "pyproject.toml").touch()
    copy(
        "app/billing", f"--vcs-ref={WORKING_TREE}", cwd=tmp_path, template=next_release
    )
    lock(tmp_path, "0.8.3")
    commit(tmp_path)
    behind = f"{WORKING_TREE} is behind {NEXT}: chancy-workers update app/billing"

    lines = run(PROGRAM, "check", "app/billing", cwd=tmp_path).stdout.splitlines()
    strictly = run(PROGRAM, "check", "--strict", cwd=tmp_path, check=False)
    (tmp_path / WORKERS / "chancy_instance.py").unlink()
    broken = run(PROGRAM, "check", cwd=tmp_path, check=False)

    file = f"app/billing/{ANSWERS}:1:"
    assert lines == [f"{file} notice: {behind}", "1 service is whole"]
    assert (strictly.returncode, strictly.stdout) == (1, f"{file} {behind}\n")
    assert broken.returncode == 1
    assert [line.split(":")[0] for line in broken.stdout.splitlines()] == [
        f"app/billing/{ANSWERS}",
        f"{WORKERS}/chancy_instance.py",
    ]


def test_missing_migrations_are_found_if_a_database_is_given(
    root: Path, server_url: str
) -> None:
    (root / ".venv").symlink_to(sys.prefix)
    with database(server_url) as url:
        (finding,) = check(root, "--database", "app/billing", WORKERS_DATABASE_URL=url)
        assert "due" in finding["problem"]
        assert finding["mend"] == "python -m app.billing.workers migrate"

        migrate(root, "app.billing", url)
        assert check(root, "--database", "app/billing", WORKERS_DATABASE_URL=url) == []


def test_in_a_pull_request_each_problem_is_an_annotation(root: Path) -> None:
    (root / "50%,app").mkdir()
    (root / "app" / "shipping").rename(root / "50%,app" / "shipping")
    commit_all(root)
    lock(root, "0.8.0")
    for workers in (root / WORKERS, root / "50%,app" / "shipping" / "workers"):
        replace(workers / "send_digest/worker.py", '"default"', '"slow%"')

    result = run(PROGRAM, "check", "--format=github", cwd=root, check=False)

    assert result.returncode == 1
    billing, shipping = result.stdout.splitlines()
    assert billing.startswith(
        f"::error file={WORKERS}/send_digest/worker.py,line=24,title=app/billing::the queue"
    )
    assert shipping.startswith(
        "::error file=50%25%2Capp/shipping/workers/send_digest/worker.py,line=24,"
        "title=50%25%2Capp/shipping::the queue slow%25 is not declared"
    )


def test_a_checkout_of_another_user_is_reported_with_git_s_way_out(root: Path) -> None:
    """A variable of git simulates the other owner."""
    env = environment(GIT_TEST_ASSUME_DIFFERENT_OWNER="1")

    result = run(PROGRAM, "check", "app/billing", cwd=root, env=env, check=False)

    assert result.returncode == 1
    assert f"git config --global --add safe.directory {root}\n" in result.stderr


def test_outside_of_a_repository_the_error_has_one_line(tmp_path: Path) -> None:
    result = run(PROGRAM, "check", cwd=tmp_path, check=False)

    assert result.returncode == 1
    assert "is not in a git repository" in result.stderr
    assert result.stderr.count("\n") == 1
    assert yaml.safe_load(result.stdout) is None
