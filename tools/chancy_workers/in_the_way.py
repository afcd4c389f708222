"""Finds why a backend cannot install the library: an older Python, or pinned packages."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from .answers import Project
from .library import NAME, folders_of, has_dependency, versions_near
from .repository import Refused

# The requirements of chancy-runtime; a test compares them with runtime/pyproject.toml.
PYTHON = ">=3.11"
OLDER = [f"3.{minor}.{patch}" for minor in range(11) for patch in (0, 99)]
# In .python-version and in a virtual environment's pyvenv.cfg.
INTERPRETER = re.compile(
    r"^(?:(?:version|version_info) = |(?:c?python|pypy)-?)?(3\.(\d+)[\w.]*)", re.M
)
PACKAGES = {
    "chancy": ">=0.26,<0.27",
    "fastapi": ">=0.112.2",
    "psycopg": ">=3.3.6",
    "psycopg-pool": ">=3.3",
    "sentry-sdk": ">=2.1",
}


def in_the_way(project: Project) -> Iterator[tuple[Path, str, str]]:
    """Why a backend cannot install the library: the file, the reason, the way out.

    Nothing is checked if the library is already a dependency, locked or installed.
    """
    if has_dependency(project) or [*versions_near(project)]:
        return
    for folder in folders_of(project):
        pyproject = folder / "pyproject.toml"
        content = _read(pyproject)
        patterns = ("requirements*.*", "requirements/*.txt")
        listed = sorted(path for each in patterns for path in folder.glob(each))
        yield from _of_interpreter(folder)
        yield from _of_python(pyproject, content)
        for requirement in _declared(content):
            yield from _of_package(project, pyproject, requirement)
        for path in filter(Path.is_file, listed):
            for line in path.read_text(errors="replace").splitlines():
                yield from _of_package(project, path, line.partition(" #")[0])
        if listed or "project" in content or "poetry" in content.get("tool", {}):
            return  # Folders above belong to other projects.


def refuse_what_is_in_the_way(project: Project) -> None:
    """Makes sure that a backend can install the library.

    Raises:
        Refused: It cannot.
    """
    for file, problem, mend in in_the_way(project):
        shown = file.relative_to(project.top).as_posix()
        raise Refused(f"{shown}: {problem}: {mend}, then run this again")


def _read(pyproject: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(pyproject.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return {}


def _of_interpreter(folder: Path) -> Iterator[tuple[Path, str, str]]:
    """The Python that runs the backend is one before 3.11."""
    for name in (".python-version", ".venv/pyvenv.cfg"):
        path = folder / name
        text = path.read_text(errors="replace") if path.is_file() else ""
        version = INTERPRETER.search(text)
        if version and int(version[2]) < 11:
            yield (
                path,
                f"the backend's Python is {version[1]}, and {NAME} needs {PYTHON}",
                "raise it, and install the packages again",
            )


def _of_python(
    pyproject: Path, content: dict[str, Any]
) -> Iterator[tuple[Path, str, str]]:
    """The backend's range of Python versions, if it allows one before 3.11."""
    poetry = content.get("tool", {}).get("poetry", {}).get("dependencies", {})
    name, range = "requires-python", content.get("project", {}).get("requires-python")
    spec = range
    if range is None:
        name, range = "python", poetry.get("python")
        spec = _poetry_range(range)
    try:
        allowed = SpecifierSet(spec) if isinstance(spec, str) else None
    except InvalidSpecifier:
        return
    if allowed is not None and any(map(allowed.contains, OLDER)):
        yield (
            pyproject,
            f"{name} is {range}, but {NAME} needs Python {PYTHON}, so uv and poetry cannot "
            "add it",
            f'write {name} = "{PYTHON}" and lock again',
        )


def _declared(content: dict[str, Any]) -> Iterator[str]:
    """The requirements in a pyproject.toml, in the form of PEP 508."""
    project, tool = content.get("project", {}), content.get("tool", {})
    lists = [project.get("dependencies", [])]
    lists += project.get("optional-dependencies", {}).values()
    lists += content.get("dependency-groups", {}).values()
    uv = tool.get("uv", {})
    lists += [
        uv.get("constraint-dependencies", []),
        uv.get("override-dependencies", []),
    ]
    yield from (each for some in lists for each in some if isinstance(each, str))
    for name, entry in tool.get("poetry", {}).get("dependencies", {}).items():
        version = entry.get("version") if isinstance(entry, dict) else entry
        if name != "python" and (found := _poetry_range(version)):
            yield f"{name}{found}"


def _poetry_range(range: object) -> str | None:
    """A range of poetry in the form of PEP 440; None if it cannot be expressed."""
    if not isinstance(range, str) or "|" in range:
        return None
    parts = [part.strip() for part in range.split(",") if part.strip() not in ("", "*")]
    return ",".join(map(_poetry_part, parts))


def _poetry_part(part: str) -> str:
    if part[0].isdigit():
        return f"=={part}"
    if not (found := re.fullmatch(r"(\^|~(?!=))\s*v?(\d[\d.]*)", part)):
        return part
    numbers = [int(number) for number in found[2].strip(".").split(".")]
    kept = 2 if found[1] == "~" else 1
    if found[1] == "^":
        kept += next(
            (i for i, number in enumerate(numbers) if number), len(numbers) - 1
        )
    upper = [*numbers[:kept]]
    upper[-1] += 1
    return f">={found[2]},<{'.'.join(map(str, upper))}"


def _of_package(
    project: Project, path: Path, text: str
) -> Iterator[tuple[Path, str, str]]:
    """A requirement that allows no version that the library accepts."""
    try:
        requirement = Requirement(re.sub(r"\s--hash=.*", "", text.strip(" \\")))
    except InvalidRequirement:
        return
    if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
        return
    name = canonicalize_name(requirement.name)
    if name == "sentry-sdk" and not project.answers.get("sentry", True):
        return
    if name in PACKAGES and not _fit(
        requirement.specifier, SpecifierSet(PACKAGES[name])
    ):
        yield (
            path,
            f"{requirement} allows no version of {name} that {NAME} accepts "
            f"({PACKAGES[name]})",
            f"raise it to {name}{PACKAGES[name]} and lock again",
        )


def _fit(one: SpecifierSet, other: SpecifierSet) -> bool:
    """Whether any version is in both.

    If one is, then a version that they name, or the next one after it, is in both.
    """
    candidates = [Version("9999")]
    for each in (*one, *other):
        try:
            version = Version(each.version.removesuffix(".*"))
        except InvalidVersion:
            return True  # A specifier with ===, for example.
        candidates += [version, Version(f"{version.base_version}.0.0.1")]
    return any(one.contains(each) and other.contains(each) for each in candidates)
