"""Answers change after the first render, and the team's code stays."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from chancy_workers import remove_job

from . import edits
from .releases import (
    WORKING_TREE,
    commit_all,
    list_files,
    read_files,
    update,
)
from .shared import Shared
from .support import (
    COPIER,
    PROGRAM,
    PYTEST,
    SCHEDULED,
    WITHOUT_ASYNCIO,
    commit,
    copy,
    environment,
    run,
)
from .updates import ANSWERS, KEPT, kept_answers, make_backend

WORKERS = "app/billing/workers"
RENAMED = [{"name": "send_digest"}, {"name": "summary", "queue": "slow"}]


@pytest.fixture(scope="session")
def render(template: Path, shared: Shared) -> Callable[..., Path]:
    """Renders and commits a backend with one service, once for the same answers."""

    def render(scope: str, release: str = WORKING_TREE, **answers: object) -> Path:
        return shared.folder(
            f"{scope} {release} {answers}/backend",
            lambda root: make_backend(root, scope, template, release, **answers),
        )

    return render


def project_in(root: Path, scope: str) -> Path:
    return root if scope == "backend" else root / "app" / "billing"


@pytest.fixture(params=["backend", "service"])
def scope(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def root(scope: str, render: Callable[..., Path], tmp_path: Path) -> Path:
    """A backend that a test may change."""
    return Path(shutil.copytree(render(scope), tmp_path / "backend"))


def chancy_workers(*arguments: str, cwd: Path, check: bool = True) -> str:
    """Runs the console program; returns its output."""
    result = run(PROGRAM, *arguments, cwd=cwd, check=check)
    return result.stdout + result.stderr


def answer(root: Path, scope: str, **answers: object) -> str:
    """Changes answers in the way of Copier's documentation; returns the output."""
    given = [
        f"--data={name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in answers.items()
    ]
    return update(project_in(root, scope), "--vcs-ref=:current:", *given)


def edit_answers(root: Path, scope: str, **answers: object) -> None:
    """Changes the answers file by hand and commits it."""
    edits.change_answers(project_in(root, scope), **answers)
    commit_all(root)


def without_answers(files: dict[str, bytes]) -> dict[str, bytes]:
    return {
        name: content
        for name, content in files.items()
        if not name.endswith(".copier-answers.yml")
    }


def written_once(folder: Path) -> dict[str, bytes]:
    """The team's files that an update never changes."""
    files = read_files(folder)
    return {name: text for name, text in files.items() if KEPT.fullmatch(f"/{name}")}


def test_one_command_adds_a_job_with_its_test(
    scope: str, root: Path, render: Callable[..., Path], server_url: str
) -> None:
    worker = root / WORKERS / "report" / "worker.py"
    worker.write_text(f"{worker.read_text()}\n# The team's.\n")
    commit_all(root)

    chancy_workers(
        *("add-job", "app/billing", "archive", "--schedule", "0 1 * * *"),
        *("--timezone", "Europe/London", "--queue", "slow"),
        cwd=root,
    )

    job = {
        "name": "archive",
        "queue": "slow",
        "schedule": "0 1 * * *",
        "timezone": "Europe/London",
    }
    expected = read_files(render(scope, jobs=[*ANSWERS["jobs"], job]))
    expected[f"{WORKERS}/report/worker.py"] = worker.read_bytes()
    assert read_files(root) == expected
    run(
        *(
            *PYTEST,
            *WITHOUT_ASYNCIO,
            f"{WORKERS}/tests/test_job_archive.py",
            f"{WORKERS}/tests/test_workers.py",
        ),
        cwd=root,
        env=environment(WORKERS_TEST_DATABASE_URL=server_url),
    )


def test_one_command_removes_a_job_with_everything_rendered_for_it(
    scope: str, root: Path, render: Callable[..., Path]
) -> None:
    """Its files, its test, its schedule and its route; the result equals a fresh render."""
    main = root / "app/billing/main.py"
    main.write_text(
        main.read_text().replace("billing service.", "billing service!") + ROUTE
    )
    report = root / WORKERS / "report" / "worker.py"
    report.write_text(f"{report.read_text()}\n# The team's.\n")
    commit_all(root)

    printed = chancy_workers("remove-job", "app/billing", "send_digest", cwd=root)

    expected = read_files(render(scope, jobs=ANSWERS["jobs"][1:]))
    expected[f"{WORKERS}/report/worker.py"] = report.read_bytes()
    before, after = b"billing service.", b"billing service!"
    rendered = expected["app/billing/main.py"]
    expected["app/billing/main.py"] = rendered.replace(before, after) + ROUTE.encode()
    assert read_files(root) == expected
    assert "stay" not in printed and "conflict" not in printed
    assert "Queued jobs of it fail once this is deployed" in printed
    assert not (root / WORKERS / "send_digest").exists()


ROUTE = """

@app.get("/ours")
async def ours() -> None:
    \"\"\"The team's.\"\"\"
"""
# What a team wrote into main.py beside the sample's routes: what is in its place, and what
# is left of that without the job.
BESIDE: dict[str, tuple[str, str, str]] = {
    "after-the-routes": (
        '    return {"id": str(id), "state": job.state.value}\n',
        f'    return {{"id": str(id), "state": job.state.value}}\n{ROUTE}',
        ROUTE,
    ),
    "between-the-routes": (
        '\n\n@app.get("/jobs/{id}")\n',
        f'{ROUTE}\n\n@app.get("/jobs/{{id}}")\n',
        ROUTE,
    ),
    "a-name-more-from-the-same-module": (
        "import FastAPI, HTTPException\n",
        "import FastAPI, HTTPException, Response  # noqa: F401\n",
        "import FastAPI, HTTPException, Response  # noqa: F401\n",
    ),
}


def with_and_without_the_sample(render: Callable[..., Path]) -> list[str]:
    """The rendered main.py of a service with the sample's job, and of one without jobs."""
    return [
        (render("service", jobs=jobs) / "app/billing/main.py").read_text()
        for jobs in (ANSWERS["jobs"][:1], [])
    ]


@pytest.mark.parametrize("where", list(BESIDE))
def test_what_a_team_wrote_beside_the_sample_s_routes_stays_when_they_go(
    where: str, render: Callable[..., Path]
) -> None:
    before, after = with_and_without_the_sample(render)
    old, new, left = BESIDE[where]
    assert old in before

    merged = remove_job.merged(before.replace(old, new), before, after)

    expected = (
        after + left if left == ROUTE else after.replace("import FastAPI\n", left)
    )
    assert merged == expected


def test_the_last_job_goes_with_its_routes_from_above_the_team_s(
    render: Callable[..., Path], tmp_path: Path
) -> None:
    jobs = ANSWERS["jobs"][:1]
    root = Path(shutil.copytree(render("service", jobs=jobs), tmp_path / "backend"))
    main = root / "app/billing/main.py"
    main.write_text(main.read_text() + ROUTE)
    commit_all(root)

    chancy_workers("remove-job", "app/billing", "send_digest", cwd=root)

    without = render("service", jobs=[]) / "app/billing/main.py"
    assert main.read_text() == without.read_text() + ROUTE


@pytest.mark.parametrize(
    ("release", "updates"), [("v0.8.1", False), ("v0.8.1", True), ("v0.5.2", True)]
)
def test_the_last_job_goes_with_the_routes_that_an_older_release_wrote(
    release: str, updates: bool, render: Callable[..., Path], tmp_path: Path
) -> None:
    """An update does not reword them, and the team's lines keep their own endings."""
    jobs = ANSWERS["jobs"][:1]
    old = render("service", release, jobs=jobs)
    root = Path(shutil.copytree(old, tmp_path / "backend"))
    if updates:
        chancy_workers("update", cwd=root)
    main = root / "app/billing/main.py"
    route = ROUTE.replace("\n", "\r\n").encode()
    main.write_bytes(main.read_bytes() + route)
    commit_all(root)

    printed = chancy_workers("remove-job", "app/billing", "send_digest", cwd=root)

    without = render("service", release, jobs=[]) / "app/billing/main.py"
    assert main.read_bytes() == without.read_bytes() + route
    assert not (root / WORKERS / "send_digest").exists()
    assert "stay" not in printed
    assert "The job send_digest was removed from app/billing" in printed


def test_a_route_of_the_team_s_keeps_the_imports_that_it_uses(
    render: Callable[..., Path],
) -> None:
    before, after = with_and_without_the_sample(render)
    route = ROUTE.replace("ours()", "ours(id: UUID)")

    text = remove_job.merged(before + route, before, after)

    imported = "contextmanager\nfrom uuid import UUID\n"
    assert text == after.replace("contextmanager\n", imported, 1) + route


def test_a_route_that_the_team_changed_stays_with_its_import(
    render: Callable[..., Path],
) -> None:
    """The command then names the import as a use of the job."""
    before, after = with_and_without_the_sample(render)
    old = "    reference = await"
    assert old in before

    text = remove_job.merged(
        before.replace(old, f"    print(job)\n{old}"), before, after
    )

    assert text is not None
    assert "    print(job)\n" in text
    assert "from .workers.send_digest.worker import send_digest\n" in text


def test_a_name_that_the_team_exports_stays_with_its_import(
    render: Callable[..., Path],
) -> None:
    """The command then names the import as a use of the job."""
    before, after = with_and_without_the_sample(render)
    exports = '\n__all__ = ["app", "send_digest"]\n'

    text = remove_job.merged(before + exports, before, after)

    assert text is not None
    assert text.endswith(exports)
    assert "from .workers.send_digest.worker import send_digest\n" in text


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8-sig"])
def test_a_main_py_in_another_encoding_stays_and_its_uses_are_named(
    encoding: str, render: Callable[..., Path], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(render("service"), tmp_path / "backend"))
    main = root / "app/billing/main.py"
    text = f"# -*- coding: {encoding} -*-\n# Für uns.\n{main.read_text()}"
    main.write_bytes(text.encode(encoding))
    commit_all(root)
    before = read_files(root)
    remove = ("remove-job", "app/billing", "send_digest")

    refused = chancy_workers(*remove, cwd=root, check=False)

    imported = "from .workers.send_digest.worker import send_digest"
    line = text.splitlines().index(imported) + 1
    assert refused == (
        f"chancy-workers remove-job: app/billing/main.py:{line} uses the job send_digest: "
        "remove that, commit, then run this again\n"
    )
    assert read_files(root) == before


# Files that use the job `report`, with the line that uses it.
USES = {
    "app/billing/service.py": "from .workers.report.worker import report\n",
    "app/billing/workers/tests/test_ours.py": "from ..report import worker\n",
    "app/billing/workers/other.py": "from . import (\n    report,\n)\n",
    "scripts/push.py": 'JOB = "app.billing.workers.report.worker.report"\n',
    "app/billing/main.py": "from .workers.report.worker import report  # At the end.\n",
}


def test_a_job_that_is_used_is_not_removed_and_each_use_is_reported(
    render: Callable[..., Path], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(render("service"), tmp_path / "backend"))
    for name, text in USES.items():
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text((path.read_text() if path.is_file() else "") + text)
    namesake = root / "app/shipping/workers/report/worker.py"
    namesake.parent.mkdir(parents=True)
    namesake.write_text("from ..report.worker import report\n")
    last = len((root / "app/billing/main.py").read_text().splitlines())
    commit_all(root)
    before = read_files(root)
    remove = ("remove-job", "app/billing", "report")

    refused = chancy_workers(*remove, cwd=root, check=False)

    places = [f"{name}:{last if name.endswith('main.py') else 1}" for name in USES]
    uses, _, rest = refused.removeprefix("chancy-workers remove-job: ").partition(
        " use "
    )
    assert sorted(uses.split(", ")) == sorted(places)
    assert "the job report: remove that, commit, then run this again" in rest
    assert read_files(root) == before


def test_untracked_files_of_a_removed_job_stay(
    render: Callable[..., Path], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(render("service"), tmp_path / "backend"))
    job = root / WORKERS / "report"
    (root / ".gitignore").write_text("*.bin\n")
    commit_all(root)
    (job / "model.bin").write_bytes(b"The team's.")
    (job / "notes.py").write_text("# The team's.\n")
    before = read_files(root)
    remove = ("remove-job", "app/billing", "report")

    refused = chancy_workers(*remove, cwd=root, check=False)
    unknown = chancy_workers(*remove[:2], "tests", cwd=root, check=False)
    same = read_files(root)
    commit_all(root)
    printed = chancy_workers(*remove, cwd=root)

    assert f"uncommitted changes in {WORKERS}/report/notes.py: commit" in refused
    assert (
        "there is no job tests in app/billing: name one of send_digest, rep" in unknown
    )
    assert same == before
    assert [path.name for path in job.iterdir()] == ["model.bin"]
    assert f"{WORKERS}/report stays, because git does not have the files" in printed


def test_the_files_of_a_job_that_is_no_longer_in_the_answers_can_be_removed(
    render: Callable[..., Path], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(render("service"), tmp_path / "backend"))
    answer(root, "service", jobs=ANSWERS["jobs"][:1])
    assert (root / WORKERS / "report" / "worker.py").is_file()
    commit_all(root)

    chancy_workers("remove-job", "app/billing", "report", cwd=root)

    assert read_files(root) == read_files(render("service", jobs=ANSWERS["jobs"][:1]))


@pytest.mark.parametrize("by_hand", [False, True], ids=["copier", "by-hand"])
def test_a_job_removed_from_the_answers_keeps_its_files_and_is_not_registered(
    by_hand: bool, scope: str, root: Path, render: Callable[..., Path]
) -> None:
    job = root / WORKERS / "send_digest"
    (job / "worker.py").write_text(
        f"{(job / 'worker.py').read_text()}\n# The team's.\n"
    )
    (job / "text.py").touch()
    commit_all(root)
    before = read_files(root)

    if by_hand:
        edit_answers(root, scope, jobs=ANSWERS["jobs"][1:])
        printed = chancy_workers("update", cwd=root)
    else:
        printed = answer(root, scope, jobs=ANSWERS["jobs"][1:])

    assert "send_digest was removed from the answers and is no longer reg" in printed
    after = without_answers(read_files(root))
    fresh = without_answers(read_files(render(scope, jobs=ANSWERS["jobs"][1:])))
    kept = {
        name: before[name]
        for name in before
        if "/send_digest/" in name
        or name.endswith(("_send_digest.py", "billing/main.py"))
    }
    readme = {"README.md": after["README.md"]} if scope == "backend" else {}
    assert after == {**fresh, **kept, **readme}
    assert (
        "send_digest" not in (root / WORKERS / "chancy_initialization.py").read_text()
    )


def test_for_a_job_renamed_in_the_answers_the_output_says_how_to_move_its_body(
    scope: str, root: Path
) -> None:
    printed = answer(root, scope, jobs=RENAMED)

    assert "Was report renamed?" in printed
    assert (root / WORKERS / "report" / "worker.py").is_file()
    assert (root / WORKERS / "summary" / "worker.py").is_file()


def test_for_a_job_on_another_queue_the_output_says_what_to_write(
    scope: str, root: Path
) -> None:
    before = (root / WORKERS / "report" / "worker.py").read_bytes()

    printed = answer(root, scope, jobs=[ANSWERS["jobs"][0], "report"])

    assert 'write @job(queue="default") and async def in' in printed
    assert (root / WORKERS / "report" / "worker.py").read_bytes() == before


def test_for_a_queue_with_another_executor_the_output_says_how_to_change_its_jobs(
    scope: str, root: Path, render: Callable[..., Path]
) -> None:
    worker = root / WORKERS / "send_digest" / "worker.py"
    before = worker.read_bytes()
    queues = [{"name": "default", "executor": "process"}, ANSWERS["queues"][1]]

    printed = answer(root, scope, queues=queues)

    assert 'write @job(queue="default") and def in' in printed
    assert "the job report" not in printed
    assert worker.read_bytes() == before
    fresh = read_files(render(scope, queues=queues))
    for name in ("send_digest/worker.py", "tests/test_job_send_digest.py"):
        fresh[f"{WORKERS}/{name}"] = (root / WORKERS / name).read_bytes()
    assert read_files(root) == fresh
    commit_all(root)

    queues[0]["executor"] = "thread"
    assert "send_digest" not in answer(root, scope, queues=queues)


CHANGED: dict[str, dict[str, Any]] = {
    "plugins": {"sentry": False, "metrics": True, "workflow": True},
    "database": {
        "start_without_database": True,
        "database_secret": "BILLING-URL",
        "run_workers": "own_process",
    },
    "work": {
        "jobs": [
            {"name": "send_digest", "schedule": "@daily"},
            ANSWERS["jobs"][1],
        ],
        "queues": [{"name": "default", "concurrency": 7}, ANSWERS["queues"][1]],
        "run_workers": "both",
        "workers": [{"process": "api"}, {"process": "own"}],
    },
}


@pytest.mark.parametrize("name", list(CHANGED))
def test_changing_answers_equals_a_fresh_render_and_can_be_reverted(
    name: str, render: Callable[..., Path], tmp_path: Path
) -> None:
    scope = "service"
    root = Path(shutil.copytree(render(scope), tmp_path / "backend"))
    before = read_files(root)
    answers = yaml.safe_load(before["app/billing/.copier-answers.yml"])

    answer(root, scope, **CHANGED[name])
    changed = read_files(root)
    commit_all(root)
    answer(root, scope, **{each: answers[each] for each in CHANGED[name]})

    fresh = read_files(render(scope, **CHANGED[name]))
    fresh["app/billing/main.py"] = before["app/billing/main.py"]
    assert changed == fresh
    assert read_files(root) == before


def test_files_that_the_team_deleted_or_moved_do_not_come_back(
    scope: str, root: Path
) -> None:
    workers = root / WORKERS
    (workers / "report" / "worker.py").rename(workers / "report" / "work.py")
    (workers / "report" / "__init__.py").unlink()
    shutil.rmtree(workers / "send_digest")
    (workers / "tests" / "__init__.py").unlink()
    (workers / "tests" / "test_job_report.py").unlink()
    (workers / "tests" / "test_workers.py").unlink()
    (root / "app" / "billing" / "main.py").unlink()
    commit_all(root)
    before = list_files(root)

    answer(root, scope, metrics=True)

    assert list_files(root) == before


def test_a_job_whose_package_would_hide_a_module_is_refused(root: Path) -> None:
    (root / WORKERS / "summary.py").touch()
    commit_all(root)

    add = (PROGRAM, "add-job", "app/billing", "summary")
    result = run(*add, cwd=root, check=False)

    assert result.returncode == 1
    assert "workers/summary.py exists, and the job's package" in result.stderr
    assert run("git", "status", "--porcelain", cwd=root).stdout == ""


def test_adding_a_hand_written_job_does_not_change_its_files(
    scope: str, root: Path
) -> None:
    job = root / WORKERS / "archive"
    shutil.copytree(root / WORKERS / "report", job)
    (job / "__init__.py").write_text("OLDEST = 7  # The team's.\n")
    (root / WORKERS / "tests" / "test_job_archive.py").write_text("# The team's.\n")
    commit_all(root)
    before = read_files(job)

    printed = chancy_workers("add-job", "app/billing", "archive", cwd=root)

    assert "conflict" not in printed
    assert read_files(job) == before
    test = root / WORKERS / "tests" / "test_job_archive.py"
    assert test.read_text() == "# The team's.\n"


def test_an_unknown_time_zone_is_refused_before_anything_changes(
    root: Path,
) -> None:
    before = read_files(root)
    job = ("archive", "--schedule", "0 1 * * *", "--timezone", "Mars/Olympus")

    printed = chancy_workers("add-job", "app/billing", *job, cwd=root, check=False)

    assert "there is no time zone Mars/Olympus" in printed
    assert read_files(root) == before


def test_copier_prints_no_warnings(template: Path, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").touch()
    version = f"--vcs-ref={WORKING_TREE}"

    copied = copy("app/billing", version, cwd=tmp_path, template=template)
    commit(tmp_path)

    assert "Warning" not in copied.stdout + copied.stderr
    assert "Warning" not in update(tmp_path / "app" / "billing")


def test_copier_refuses_answers_edited_by_hand_and_chancy_workers_applies_them(
    scope: str, root: Path, render: Callable[..., Path]
) -> None:
    edit_answers(root, scope, jobs=[*ANSWERS["jobs"], "archive"], metrics=True)
    before = read_files(root)

    project = project_in(root, scope)
    refused = run(
        *COPIER, "update", "--trust", "--defaults", project, cwd=root, check=False
    )

    assert "was edited by hand" in refused.stderr.splitlines()[-1]
    assert read_files(root) == before
    chancy_workers("update", "app/billing", cwd=root)
    fresh = render(scope, jobs=[*ANSWERS["jobs"], "archive"], metrics=True)
    assert read_files(root) == read_files(fresh)


def test_answers_edited_by_hand_in_an_old_release_are_applied(
    render: Callable[..., Path], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(render("service", "v0.2.0"), tmp_path / "backend"))
    edit_answers(root, "service", jobs=[*ANSWERS["jobs"], "archive"], sentry=False)

    chancy_workers("update", cwd=root)

    fresh = read_files(
        render(
            "service",
            jobs=[*ANSWERS["jobs"], "archive"],
            sentry=False,
            **kept_answers("v0.2.0"),
        )
    )
    assert read_files(root) == {**fresh, **written_once(root)}


def test_an_old_release_s_second_service_is_not_confused_with_its_backend(
    template: Path, render: Callable[..., Path], tmp_path: Path
) -> None:
    root = Path(shutil.copytree(render("backend", "v0.2.0"), tmp_path / "backend"))
    copy("app/shipping", "--vcs-ref=v0.2.0", cwd=root, template=template)
    commit_all(root)
    current = Path(shutil.copytree(render("backend"), tmp_path / "current" / "backend"))
    options = (
        f"--vcs-ref={WORKING_TREE}",
        "--data=only_registered=false",
        *SCHEDULED,
    )
    copy("app/shipping", *options, cwd=current, template=template)

    printed = chancy_workers("update", "app/shipping", cwd=root)

    assert "updated" in printed
    service = root / "app" / "shipping"
    fresh = read_files(current / "app" / "shipping")
    assert read_files(service) == {**fresh, **written_once(service)}
