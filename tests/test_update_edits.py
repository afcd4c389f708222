"""Random edits of teams are kept through an update from any release."""

import math
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from pprint import pformat
from textwrap import indent
from typing import Any

import pytest
import yaml
from chancy_workers.answers import read
from chancy_workers.source import task
from chancy_workers.update import update as renew
from copier import run_update
from hypothesis import Phase, given, note, seed, settings
from hypothesis import strategies as st

from . import edits
from .releases import (
    ALWAYS,
    RELEASES,
    WORKING_TREE,
    commit_all,
    make_template,
    read_files,
)
from .shared import Shared
from .support import run
from .updates import ANSWERS as RENDERED
from .updates import Update, kept_answers, make_backend, switch_imports

WORDS = st.sampled_from(["alpha", "beta", "gamma"])
JOBS = st.sampled_from(["send_digest", "report", "alpha"])
FILES = st.sampled_from(
    [
        "main.py",
        "workers/__init__.py",
        "workers/__main__.py",
        "workers/chancy_instance.py",
        "workers/chancy_queues.py",
        "workers/tests/test_workers.py",
        "workers/report/worker.py",
        "workers/send_digest/__init__.py",
        "workers/tests/conftest.py",
        "workers/tests/test_job_report.py",
        "workers/tests/test_chancy_cron.py",
    ]
)
EDITS: dict[str, st.SearchStrategy[Any]] = {
    "change_pool_size": st.fixed_dictionaries(
        {"minimum": st.integers(1, 5), "maximum": st.integers(6, 99)}
    ),
    "change_queue": st.fixed_dictionaries({"concurrency": st.integers(1, 999)}),
    "add_cron_job": st.fixed_dictionaries({"name": WORDS}),
    "add_plugin": st.fixed_dictionaries({}),
    "rewrite_job": st.fixed_dictionaries({"job": JOBS, "text": WORDS}),
    "rename_job": st.fixed_dictionaries({"old": JOBS, "new": WORDS}),
    "rewrite_main": st.fixed_dictionaries({}),
    "reformat": st.fixed_dictionaries({"line_length": st.sampled_from([72, 100, 140])}),
    "add_file": st.fixed_dictionaries({"name": WORDS.map("workers/{}.py".format)}),
    "add_line": st.fixed_dictionaries({"name": FILES}),
    "delete_file": st.fixed_dictionaries({"name": FILES}),
    "move_file": st.fixed_dictionaries(
        {"name": FILES, "to": WORDS.map("workers/moved/{}.py".format)}
    ),
}
# A module of a release before v0.5.0.
OLD_MODULE = re.compile(r"/workers/chancy_(?!initialization|instance)\w+\.py$")
Step = tuple[str, dict[str, Any]]
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.sampled_from(sorted(EDITS)).flatmap(
        lambda name: st.tuples(st.just(name), EDITS[name])
    ),
    min_size=1,
    max_size=8,
)
# Jobs that are removed, added, moved to another queue or get another schedule.
ANSWERED_JOBS = st.lists(
    st.fixed_dictionaries(
        {"name": JOBS | st.just("archive")},
        optional={
            "queue": st.sampled_from(["default", "slow"]),
            "schedule": st.sampled_from(["@daily", "0 7 * * mon-fri"]),
        },
    ),
    max_size=4,
    unique_by=lambda job: str(job["name"]),
).filter(lambda jobs: jobs != RENDERED["jobs"])
ANSWERED_QUEUES = (
    st.tuples(
        st.fixed_dictionaries(
            {"name": st.just("default")}, optional={"concurrency": st.integers(1, 999)}
        ),
        st.fixed_dictionaries(
            {"name": st.just("slow")},
            optional={"executor": st.sampled_from(["async", "thread", "process"])},
        ),
    )
    .map(list)
    .filter(lambda queues: queues != RENDERED["queues"])
)
UNCHANGED: st.SearchStrategy[dict[str, Any]] = st.just({})
# Each answer differs from the rendered one.
ANSWERS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {},
    optional={
        "jobs": ANSWERED_JOBS,
        "queues": ANSWERED_QUEUES,
        "run_workers": st.just("own_process"),
        "workers": st.just([{}, {}]),
        "sentry": st.just(False),
        "metrics": st.just(True),
        "workflow": st.just(True),
        "start_without_database": st.just(True),
        "database_secret": st.just("BILLING-POOLER-URL"),
    },
).filter(bool)
SCRIPT = """\
# From the template's folder: uv run python - < THIS_FILE
from tests.test_update_edits import Example, repeat

repeat(
    {example}
)
"""


@dataclass(frozen=True)
class Example:
    """A team's edits of its service, and the way of updating it.

    Args:
        steps: Functions of edits.py, with their arguments beside the service.
        answers: Changes in the answers file, by hand.
        program: `copier` or `chancy-workers`; only the latter applies changed answers.
        again: Whether a second update follows.
    """

    release: str
    scope: str
    steps: list[Step]
    answers: dict[str, Any]
    program: str
    again: bool


@dataclass(frozen=True)
class Renders:
    """Renders of services by the template's releases, shared by the tests."""

    template: Path
    shared: Shared

    def backend(self, release: str, scope: str, **kept: object) -> Path:
        """A backend that is rendered once; tests copy it."""
        return self.shared.folder(
            f"{self.template} {scope} {release} {kept}/backend",
            lambda root: make_backend(root, scope, self.template, release, **kept),
        )

    def fresh(
        self, release: str, scope: str, answers: dict[str, Any]
    ) -> dict[str, bytes]:
        """The working tree's render of these answers to a release."""
        kept = kept_answers(release)
        if not answers:
            return read_files(self.backend(WORKING_TREE, scope, **kept))
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder) / "backend"
            given = {**kept, **answers}
            make_backend(root, scope, self.template, WORKING_TREE, **given)
            return read_files(root)


@pytest.fixture(scope="session")
def renders(template: Path, shared: Shared) -> Renders:
    return Renders(template, shared)


def hold(example: Example, renders: Renders, folder: Path) -> None:
    """Repeats a team's edits in a folder, updates it and checks the result."""
    rendered = renders.backend(example.release, example.scope)
    root = Path(shutil.copytree(rendered, folder / "backend"))
    service = root / "app" / "billing"
    project = root if example.scope == "backend" else service
    update = update_with_copier if example.program == "copier" else update_with_ours
    old = read_files(root)
    edit(example, service, project)
    commit_all(root)
    team = read_files(root)
    if example.answers and has_fingerprint(project):
        with pytest.raises(ValueError, match="was edited by hand"):
            update_with_copier(project)
        assert read_files(root) == team
    update(project)
    updated = read_files(root)
    fresh = renders.fresh(example.release, example.scope, example.answers)
    done = Update(root, project, service, old, team, updated, fresh, "")
    expected = done.expected(folder)
    if example.program == "chancy-workers":
        take_layout(expected, old, team, fresh)
        # Imports in edited modules that stay are not switched.
        for name in expected:
            if name.endswith(".py") and not OLD_MODULE.search(name):
                expected[name] = switch_imports(root / name, expected[name])
    assert updated == expected, different_files(updated, expected)
    assert conflicts_of(root) == files_with_markers(updated)
    if example.again:
        commit_all(root)
        update(project)
        assert read_files(root) == updated


def edit(example: Example, service: Path, project: Path) -> None:
    for name, arguments in example.steps:
        getattr(edits, name)(service, **arguments)
    if example.answers:
        edits.change_answers(project, **example.answers)


def take_layout(
    expected: dict[str, bytes],
    old: dict[str, bytes],
    team: dict[str, bytes],
    fresh: dict[str, bytes],
) -> None:
    """Expects the fresh file instead of a conflict if the team only formatted the file."""
    for name in files_with_markers(expected):
        if name in old and name.endswith(".py"):
            if task("layout").differ_in_layout_only(
                old[name].decode(), team[name].decode()
            ):
                expected[name] = fresh[name]


def different_files(some: dict[str, bytes], others: dict[str, bytes]) -> list[str]:
    names = sorted(some.keys() | others.keys())
    return [name for name in names if some.get(name) != others.get(name)]


def conflicts_of(root: Path) -> list[str]:
    """The files with a conflict according to git."""
    return run("git", "diff", "--name-only", "--diff-filter=U", cwd=root).stdout.split()


def files_with_markers(files: dict[str, bytes]) -> list[str]:
    return [name for name in sorted(files) if b"<<<<<<< before updating" in files[name]]


def has_fingerprint(project: Path) -> bool:
    answers = (project / ".copier-answers.yml").read_text()
    return "_fingerprint" in yaml.safe_load(answers)


def update_with_copier(project: Path) -> None:
    """Runs `copier update` in this process, which saves the start of another one."""
    run_update(project, defaults=True, overwrite=True, unsafe=True, quiet=True)


def update_with_ours(project: Path) -> None:
    """Runs `chancy-workers update` in the same way."""
    file = read(project / ".copier-answers.yml")
    assert file is not None
    outcome, _ = renew(file)
    assert outcome.result != "refused", outcome.about


def script(example: Example) -> str:
    """The code that repeats an example, to paste into a file."""
    return SCRIPT.format(example=indent(pformat(example, width=84), " " * 4).strip())


def repeat(example: Example) -> None:
    """Repeats an example in a folder that stays for inspection."""
    folder = Path(tempfile.mkdtemp(prefix="update-edits-"))
    print(f"the result is in {folder}/backend; git diff HEAD there shows the update")
    renders = Renders(make_template(folder / "template"), Shared(folder))
    hold(example, renders, folder)


# The other releases run with --slow; tests/test_updates.py updates from every release.
CASES = [
    pytest.param(release, scope, marks=[] if release in ALWAYS else [pytest.mark.slow])
    for release in RELEASES
    for scope in ("backend", "service")
]


@pytest.mark.parametrize(("release", "scope"), CASES)
def test_every_edit_of_a_team_is_kept_by_an_update(
    release: str, scope: str, renders: Renders, request: pytest.FixtureRequest
) -> None:
    """Runs 18 examples in total, always the same; with --slow 1,000 new ones."""
    slow = bool(request.config.getoption("--slow"))
    own = request.config.getoption("--hypothesis-seed") if slow else ""

    @seed(f"{own} {release} {scope}")
    @settings(
        max_examples=math.ceil(1000 / len(CASES)) if slow else 3,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        phases=[Phase.generate, Phase.shrink],
    )
    @given(
        steps=STEPS,
        answers=UNCHANGED | UNCHANGED | ANSWERS,
        program=st.sampled_from(["copier", "copier", "chancy-workers"]),
        again=st.sampled_from([False] * 7 + [True]),
    )
    def test(
        steps: list[Step], answers: dict[str, Any], program: str, again: bool
    ) -> None:
        program = "chancy-workers" if answers else program
        example = Example(release, scope, steps, answers, program, again)
        note(script(example))
        with tempfile.TemporaryDirectory() as folder:
            hold(example, renders, Path(folder))

    test()
