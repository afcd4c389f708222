"""Finds in the files of a repository how a service is started."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

NAMES = (
    *("Dockerfile*", "*.Dockerfile", "*.dockerfile", "Containerfile*", "Procfile*"),
    *("compose*.y*ml", "docker-compose*.y*ml", "Makefile", "justfile", "*.sh"),
    "pyproject.toml",
)
# The folders that may have such files, the top folder first.
FOLDERS = (".", "scripts", "script", "bin", "docker", "deploy")
LONGEST = 200_000
# A line that runs a Python file; the `fastapi` command imports the file instead.
RUNS_A_FILE = re.compile(r"\b(python[\d.]*|uv run|CMD|ENTRYPOINT)\b(?!.*\bfastapi\b)")


class Start(NamedTuple):
    """Starts a module, by its own name or as a module of a package."""

    file: Path
    text: str
    as_package: bool


def find_start(module: Path) -> Start | None:
    """How a module is started; None if no file shows it.

    A start as a module of a package is preferred, because it names more of the path.
    """
    starts = [*starts_of(module)]
    return next((each for each in starts if each.as_package), next(iter(starts), None))


def starts_of(module: Path) -> Iterator[Start]:
    """The starts of a module, from the nearest files first."""
    for file in start_files(module.parent):
        try:
            text = file.read_bytes()[:LONGEST].decode("utf-8", "replace")
        except OSError:
            continue
        lines = [line for line in text.splitlines() if not re.match(r"\s*#", line)]
        text = "\n".join(lines)
        for target, path in started_in(lines, module.stem):
            if is_meant(module, path, file, text):
                as_package = len(path) > 1 and not target.endswith(".py")
                yield Start(file, target, as_package)


def start_files(start: Path) -> Iterator[Path]:
    """Files that may start a service, beside it and above it in its repository."""
    for above in folders_of_repository(start):
        for folder in FOLDERS:
            for path in sorted((above / folder).glob("*")):
                if any(fnmatchcase(path.name, name) for name in NAMES):
                    if path.is_file() and not is_rendered(path):
                        yield path


def is_rendered(path: Path) -> bool:
    """Whether the template wrote a file; such a file only repeats the answers."""
    return path.with_name("migrate.bicep").is_file()


def folders_of_repository(folder: Path) -> list[Path]:
    """A folder and those above it, up to the repository's top; without one, two more."""
    folders = [folder, *folder.parents]
    tops = [each for each in folders if (each / ".git").exists()]
    return folders[: folders.index(tops[0]) + 1 if tops else 3]


def started_in(lines: list[str], name: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The started targets that have a module's name, each with its path in parts."""
    stem = re.escape(name)
    for line in lines:
        for target in re.findall(rf"(?<![\w./-])((?:\w+\.)*{stem}:[a-zA-Z_]\w*)", line):
            yield target, tuple(target.partition(":")[0].split("."))
        for target in re.findall(rf"-m\W+((?:\w+\.)*{stem})(?![\w.])", line):
            yield target, tuple(target.split("."))
        if RUNS_A_FILE.search(line):
            for script in re.findall(rf"(?<![\w./-])([\w./-]*\b{stem}\.py)\b", line):
                parts = [part for part in script.split("/") if part not in ("", ".")]
                yield script, (*(parts[-1:] if script[0] == "/" else parts),)


def is_meant(module: Path, path: tuple[str, ...], file: Path, text: str) -> bool:
    """Whether a path in a start file means this module and not another file of that name."""
    *folders, _ = path
    if tuple(folders) != module.parent.parts[len(module.parent.parts) - len(folders) :]:
        return False
    beside = file.parent.parent if file.parent.name in FOLDERS else file.parent
    named = beside.joinpath(*folders, module.name)
    if named == module or named.exists():
        return named == module
    folder = re.escape(module.parent.name)
    return bool(folders or re.search(rf"(?<![\w:]){folder}(?!\w)", text))
