"""Checks what the files of a deployment require from the service."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from .answers import Project
from .python_files import parsed
from .repository import files_with

# The default of Settings in the library.
SHUTDOWN_GRACE = 20
# The seconds that leaving the lifespan takes after the jobs have ended.
MARGIN = 5
READY = "/health/ready"
ROUTER = "health_router"


def is_deployed(project: Project) -> bool:
    """Whether the files in deploy/ are the template's; other files may deploy anything."""
    return bool(project.answers.get("deploy", "none") != "none")


def short_graces(
    project: Project, initialization: str
) -> Iterator[tuple[Path, int, int, int]]:
    """Grace periods after which the platform kills a process that may still finish jobs.

    Yields the file, the line, the seconds there and the seconds that are needed.
    """
    if not is_deployed(project):
        return
    needed = _shutdown_grace(initialization) + MARGIN
    for path in sorted(project.folder.glob("deploy/*.bicep")):
        lines = path.read_text(errors="replace").splitlines()
        names = [
            found[1]
            for line in lines
            if (found := re.match(r"\s*terminationGracePeriodSeconds: *(\w+)", line))
        ]
        for number, line in enumerate(lines, 1):
            found = re.match(
                r"\s*(?:terminationGracePeriodSeconds:|(?:var|param) (\w+)(?: int)? *=) *(\d+)",
                line,
            )
            if found and (found[1] is None or found[1] in names):
                if int(found[2]) < needed:
                    yield path, number, int(found[2]), needed


def _shutdown_grace(initialization: str) -> int:
    for node in ast.walk(parsed(initialization)):
        match node:
            case ast.keyword(
                arg="shutdown_grace", value=ast.Constant(value=int(seconds))
            ):
                return seconds
    return SHUTDOWN_GRACE


def probes_without_routes(project: Project, root: Path) -> Path | None:
    """The file with a probe whose route no module of the backend has; None for none.

    Args:
        root: The folder of the backend.
    """
    path = project.folder / "deploy" / "main.bicep"
    if not is_deployed(project) or not path.is_file():
        return None
    if READY not in path.read_text(errors="replace"):
        return None
    tests = (project.service / "workers" / "tests").relative_to(root).as_posix()
    others = f":(exclude,literal){tests}"
    return None if files_with(f"{ROUTER}|{READY}", root, "*.py", others) else path
