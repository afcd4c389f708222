"""The version of FastAPI that a project uses."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from .texts import LEFT, OLDEST_FASTAPI, UNKNOWN_VERSION, Stop


def check_version(file: Path) -> str:
    """Makes sure that FastAPI runs a router's lifespan; returns a note if it is unknown.

    Raises:
        Stop: FastAPI is too old.
    """
    version, where = fastapi_version(file)
    if version and version < OLDEST_FASTAPI:
        raise Stop(
            LEFT,
            f"{where} has FastAPI {'.'.join(map(str, version))}, which never runs the "
            "lifespan of a router: raise it to 0.112.2 or later, or give the app a "
            "lifespan function with one yield",
            by_hand=True,
        )
    return "" if version else UNKNOWN_VERSION


def fastapi_version(file: Path) -> tuple[tuple[int, ...], str]:
    """A project's FastAPI version and the file that has it, ((), "") if none has."""
    pinned = r'(?m)^name = "fastapi"\s+version = "(?P<version>[\d.]+)'
    required = (
        r"(?mi)(?:^|[\"'\s])fastapi(?:\[[^\]]*\])?"
        r"(?:\s*=\s*(?:\{\s*version\s*=\s*)?[\"'])?"
        r"\s*(?P<operator>>=|~=|==|\^)\s*(?P<version>[\d.]+)"
    )
    folders = list(file.parents)
    roots = [i for i, folder in enumerate(folders) if (folder / ".git").exists()]
    folders = folders[: roots[0] + 1] if roots else folders[:4]
    for folder in folders:
        for name in ("uv.lock", "poetry.lock", "pdm.lock"):
            for version, _ in versions_in(folder, name, pinned):
                return version, name
    for folder in folders:
        for path in folder.glob("*venv/lib/python*/site-packages/fastapi-*.dist-info"):
            return version_tuple(path.name.split("-")[1]), str(path.parents[3].name)
    for folder in folders:
        for name in ("requirements*.txt", "requirements/*.txt", "pyproject.toml"):
            for version, operator in versions_in(folder, name, required):
                # A low ">=" says nothing about the installed version; the others limit it.
                if version >= OLDEST_FASTAPI or operator != ">=":
                    return version, name
    return (), ""


def versions_in(
    folder: Path, name: str, pattern: str
) -> Iterator[tuple[tuple[int, ...], str]]:
    """The versions in files, each with the operator before it."""
    for path in sorted(folder.glob(name)):
        try:
            found = re.search(pattern, path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if found:
            operator = found.groupdict().get("operator", "==")
            yield version_tuple(found["version"]), operator


def version_tuple(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])
