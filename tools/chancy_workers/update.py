"""`chancy-workers update`: brings every service of a backend to the current pattern."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from .answers import Project, Unreadable, choose, read
from .in_the_way import refuse_what_is_in_the_way
from .renewal import renew
from .repository import Refused
from .upgrade import Upgrade


@dataclass(frozen=True)
class Outcome:
    """The result of updating one service.

    Args:
        result: `updated`, `current`, `conflict` or `refused`.
        about: The files with a conflict, or the reason for the refusal.
    """

    folder: str
    before: str
    after: str
    result: str
    about: Sequence[str] = field(default=())


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "update",
        help="bring services to the newest release of the template",
        description=(
            "Updates one service after the other to the newest release and applies answers "
            "that were edited by hand. It continues if a service cannot be updated. Then it "
            "upgrades the library chancy-runtime in pyproject.toml and uv.lock. Exit status: "
            "0 all are current, 1 one has conflicts or was refused, 2 bad usage."
        ),
    )
    parser.add_argument(
        "folders",
        metavar="FOLDER",
        nargs="*",
        type=Path,
        help="such as app/billing; by default every service of the repository",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    console = Console(highlight=False)
    try:
        projects = choose(arguments.folders)
    except Refused as refused:
        print(f"chancy-workers update: {refused}", file=sys.stderr)
        return 1
    tops = {project.top for project in projects if isinstance(project, Project)}
    upgrades = {top: Upgrade.of(top) for top in tops}
    outcomes = []
    for number, project in enumerate(projects, 1):
        where = f"{number} of {len(projects)}"
        with console.status(f"Updating {project.name} ({where})"):
            outcome, messages = update(project)
        outcomes.append(outcome)
        print(f"{outcome.folder}: {outcome.result}")
        print(messages, end="", flush=True)
    for top, upgrade in upgrades.items():
        its = [
            updated
            for project, outcome in zip(projects, outcomes, strict=True)
            if outcome.result != "refused"
            and (updated := _again(project)) is not None
            and updated.top == top
        ]
        with console.status("Upgrading the library"):
            lines = upgrade.raise_for(its)
        print(*lines, sep="\n", end="\n" if lines else "")
    _show(outcomes)
    bad = {"conflict", "refused"}
    return 1 if bad & {outcome.result for outcome in outcomes} else 0


def _again(project: Project | Unreadable) -> Project | None:
    """A project after its update; None if it cannot be read."""
    try:
        return read(project.file) if isinstance(project, Project) else None
    except Refused:
        return None


def update(project: Project | Unreadable) -> tuple[Outcome, str]:
    """Updates one service; returns the outcome and the messages for the user."""
    if isinstance(project, Unreadable):
        about = [f"{project.reason}: {project.mend}"]
        return Outcome(project.name, "", "", "refused", about), ""
    try:
        refuse_what_is_in_the_way(project)
        renewal = renew(project)
    except Refused as refused:
        about = [str(refused)]
        return Outcome(project.name, project.release, "", "refused", about), ""
    if renewal.conflicts:
        result = "conflict"
    else:
        result = "updated" if renewal.changed else "current"
    outcome = Outcome(
        project.name, project.release, renewal.release, result, renewal.conflicts
    )
    return outcome, renewal.messages


def _show(outcomes: Sequence[Outcome]) -> None:
    rows = [("service", "was", "is", "result")]
    for each in outcomes:
        about = {"conflict": " in ", "refused": ": "}.get(each.result, "")
        result = each.result + about + ", ".join(each.about)
        rows.append((each.folder, each.before, each.after or each.before, result))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    if any(each.result in ("updated", "conflict") for each in outcomes):
        print("Check the changes with git diff, run the tests, then commit.")
