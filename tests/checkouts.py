"""Checkouts that are awkward to update."""

from pathlib import Path

from . import edits
from .releases import (
    RELEASES,
)
from .support import COPIER, PROGRAM, SCHEDULED, commit, copy

ANSWERS = ".copier-answers.yml"
FIRST = [*RELEASES][0]
BILLING = "app/billing"
UPDATES: dict[str, list[str | Path]] = {
    "copier": [*COPIER, "update", "--trust", "--defaults"],
    "chancy-workers": [PROGRAM, "update"],
}


def make_root(
    folder: Path, template: Path, release: str, line_length: int = 0, *options: str
) -> Path:
    """Makes a committed backend with one service, reformatted if a line length is given."""
    root = folder / "backend"
    root.mkdir(parents=True)
    (root / "pyproject.toml").touch()
    options = (f"--vcs-ref={release}", *SCHEDULED, *options)
    copy(BILLING, *options, cwd=root, template=template)
    if line_length:
        edits.reformat(root / BILLING, line_length)
    commit(root)
    return root
