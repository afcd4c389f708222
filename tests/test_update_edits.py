"""Edits as teams make them, at random, are kept through an update from any release."""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st

from . import edits
from .releases import (
    RELEASES,
    WORKING_TREE,
    commit_all,
    make_template,
    read_files,
    update,
)
from .test_updates import Update, make_backend

WORDS = st.sampled_from(["alpha", "beta", "gamma"])
JOBS = st.sampled_from(["send_digest", "report", "alpha"])
FILES = st.sampled_from(
    [
        "main.py",
        "workers/__init__.py",
        "workers/__main__.py",
        "workers/chancy_instance.py",
        "workers/chancy_queues.py",
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
Step = tuple[str, dict[str, Any]]
STEPS: st.SearchStrategy[list[Step]] = st.lists(
    st.sampled_from(sorted(EDITS)).flatmap(
        lambda name: st.tuples(st.just(name), EDITS[name])
    ),
    min_size=1,
    max_size=8,
)
SCRIPT = """\
# From the template's folder: uv run python THIS_FILE
from pathlib import Path
from tests import edits
from tests.releases import commit_all, make_template, update
from tests.test_updates import make_backend

root = Path("/tmp/repeat/old/backend")
template = make_template(root.parents[1] / "template")
project = make_backend(root, {scope!r}, template, {release!r})
service = root / "app" / "billing"
{steps}
commit_all(root)
print(update(project))
"""


@dataclass(frozen=True)
class Case:
    """A service as a release rendered it, to be copied for each example."""

    release: str
    scope: str
    folder: Path
    fresh: dict[str, bytes]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("releases") / "template")


@pytest.fixture(scope="session")
def cases(
    template: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Case]:
    rendered: dict[tuple[str, str], Case] = {}

    def case(release: str, scope: str) -> Case:
        if (release, scope) not in rendered:
            old, new = (tmp_path_factory.mktemp(scope) / "backend" for _ in range(2))
            make_backend(old, scope, template, release)
            make_backend(new, scope, template, WORKING_TREE)
            rendered[release, scope] = Case(release, scope, old, read_files(new))
        return rendered[release, scope]

    return case


def update_after(case: Case, steps: Sequence[Step], folder: Path) -> Update:
    root = Path(shutil.copytree(case.folder, folder / "backend"))
    project = root if case.scope == "backend" else root / "app" / "billing"
    service = root / "app" / "billing"
    old = read_files(root)
    for name, arguments in steps:
        getattr(edits, name)(service, **arguments)
    commit_all(root)
    team = read_files(root)
    printed = update(project)
    return Update(
        root, project, service, old, team, read_files(root), case.fresh, printed
    )


def script(case: Case, steps: Sequence[Step]) -> str:
    """What repeats an example, to be typed or pasted."""
    lines = [
        f"edits.{name}({', '.join(['service', *(f'{k}={v!r}' for k, v in told.items())])})"
        for name, told in steps
    ]
    return SCRIPT.format(scope=case.scope, release=case.release, steps="\n".join(lines))


@pytest.mark.parametrize("scope", ["backend", "service"])
def test_whatever_a_team_has_edited_is_there_after_an_update(
    scope: str, cases: Callable[[str, str], Case], request: pytest.FixtureRequest
) -> None:
    """A few examples, always the same; 500 new ones with --slow."""
    slow = bool(request.config.getoption("--slow"))

    @settings(
        max_examples=500 if slow else 2,
        derandomize=not slow,
        database=None,
        deadline=None,
    )
    @given(release=st.sampled_from([*RELEASES]), steps=STEPS)
    def hold(release: str, steps: list[Step]) -> None:
        case = cases(release, scope)
        note(script(case, steps))
        with tempfile.TemporaryDirectory() as folder:
            done = update_after(case, steps, Path(folder))
            after = dict(done.updated)
            answers = (done.project / ".copier-answers.yml").relative_to(done.root)
            assert f"_commit: {WORKING_TREE}".encode() in after.pop(str(answers))
            assert after == done.expected(Path(folder))

    hold()
