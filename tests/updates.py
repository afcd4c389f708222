"""Services of older releases, and their updates to the working tree."""

import re
from dataclasses import dataclass
from pathlib import Path

from chancy_workers.source import task
from copier import run_copy
from packaging.version import Version

from .releases import (
    three_way_merge,
)
from .support import (
    commit,
)

ANSWERS = {
    "jobs": [
        {"name": "send_digest", "schedule": "0 7 * * mon-fri"},
        {"name": "report", "queue": "slow"},
    ],
    "queues": [{"name": "default"}, {"name": "slow", "executor": "thread"}],
}
# An existing backend whose types are checked; Chancy has no py.typed.
PYPROJECT = """\
[tool.mypy]
strict = true
namespace_packages = true
explicit_package_bases = true

[[tool.mypy.overrides]]
module = "chancy.*"
follow_untyped_imports = true
"""
# An update does not give this setting to a service of an older release.
ENFORCED_FROM = Version("0.7.0")
# These files are rendered once. After that they belong to the team.
KEPT = re.compile(
    r".*/((main|worker|test_job_\w+)\.py|workers/(?!tests/)\w+/__init__\.py)"
)
# Files that stay if a job is removed from the answers.
OF_A_JOB = re.compile(r".*/workers/((?!tests/)\w+/.*|tests/test_job_\w+\.py)")


@dataclass
class Update:
    """A service before and after an update, and a fresh render.

    Each mapping has the content of files by their names below the backend's root.
    """

    root: Path
    project: Path
    service: Path
    old: dict[str, bytes]
    team: dict[str, bytes]
    updated: dict[str, bytes]
    fresh: dict[str, bytes]
    printed: str

    def expected(self, folder: Path) -> dict[str, bytes]:
        """The files after git's own merge of the team's edits with the release."""
        result = dict(self.team)
        for name in self.old.keys() | self.fresh.keys():
            old, team, fresh = (
                files.get(name) for files in (self.old, self.team, self.fresh)
            )
            if name.endswith(".copier-answers.yml") and fresh is not None:
                result[name] = fresh
            elif old is not None and fresh is None:
                if not OF_A_JOB.fullmatch(name) and is_unedited(name, old, team):
                    result.pop(name, None)
            elif KEPT.fullmatch(name) and team is not None:
                is_main = name == "app/billing/main.py"
                result[name] = (
                    switch_imports(self.root / name, team) if is_main else team
                )
            elif old is None and team is None and fresh is not None:
                result[name] = fresh
            elif team is not None and fresh is not None:
                result[name] = merge(name, team, old or b"", fresh, folder)
        return result


def kept_answers(release: str) -> dict[str, object]:
    """The answers with which a fresh render equals an updated service."""
    return {"only_registered": Version(release) >= ENFORCED_FROM}


def switch_imports(path: Path, content: bytes) -> bytes:
    """A file of the service with its old imports switched to the library."""
    wiring = task("wire_lifespan")
    place = wiring.service_of(path, "billing", "app.billing", "")
    switched: bytes | None = wiring.switch_imports(content, place).data
    return content if switched is None else switched


def is_unedited(name: str, old: bytes, team: bytes | None) -> bool:
    """Whether a team did not edit a file, or changed only its layout."""
    if team is None or team == old:
        return True
    differ_in_layout_only = task("layout").differ_in_layout_only
    return name.endswith(".py") and differ_in_layout_only(old.decode(), team.decode())


def merge(name: str, team: bytes, old: bytes, fresh: bytes, folder: Path) -> bytes:
    """git's merge, or if that conflicts a merge that handles added ends and new imports."""
    merged = three_way_merge(team, old, fresh, folder)
    if b"<<<<<<< " not in merged or "/workers/" not in name:
        return merged
    if team.startswith(old):
        return fresh + team.removeprefix(old)
    if name.endswith("chancy_initialization.py"):
        switched = task("merge_imports").with_library(
            *(text.decode() for text in (old, team, fresh))
        )
        if switched is not None:
            base, ours = (text.encode() for text in switched)
            return three_way_merge(ours, base, fresh, folder)
    return merged


def make_backend(
    folder: Path, scope: str, template: Path, version: str, **answers: object
) -> Path:
    """Renders a backend, or a service into an existing backend; returns the project."""
    project = folder if scope == "backend" else folder / "app" / "billing"
    project.mkdir(parents=True)
    if scope == "service":
        (folder / "pyproject.toml").write_text(PYPROJECT)
    run_copy(
        str(template),
        project,
        data={**ANSWERS, **answers, "scope": scope, "service": "billing"},
        vcs_ref=version,
        defaults=True,
        unsafe=True,
        quiet=True,
    )
    commit(folder)
    return project
