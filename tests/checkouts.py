"""Checkouts that are awkward to update."""

import shutil
from pathlib import Path

import pytest

from . import edits
from .releases import (
    RELEASES,
    WORKING_TREE,
)
from .support import COPIER, PROGRAM, commit, copy

ANSWERS = ".copier-answers.yml"
FIRST = [*RELEASES][0]
BILLING = "app/billing"
UPDATES: dict[str, list[str | Path]] = {
    "copier": [*COPIER, "update", "--trust", "--defaults"],
    "chancy-workers": [PROGRAM, "update"],
}


def make_root(folder: Path, template: Path, release: str, line_length: int = 0) -> Path:
    """A backend with one service, laid out anew when that is asked for, and committed."""
    root = folder / "backend"
    root.mkdir(parents=True)
    (root / "pyproject.toml").touch()
    copy(BILLING, f"--vcs-ref={release}", cwd=root, template=template)
    if line_length:
        edits.reformat(root / BILLING, line_length)
    commit(root)
    return root


@pytest.fixture(scope="session")
def one_service(next_release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_root(tmp_path_factory.mktemp("one"), next_release, WORKING_TREE)


@pytest.fixture
def root(one_service: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(one_service, tmp_path / "backend"))
