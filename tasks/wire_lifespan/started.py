"""How a service is started, as far as the files of its repository say."""

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
# The folders of a repository that have such files, the repository's own first.
FOLDERS = (".", "scripts", "script", "bin", "docker", "deploy")
LONGEST = 200_000
# A line that starts a file of Python, and none that a server imports.
RUNS_A_FILE = re.compile(r"\b(python[\d.]*|uv run|CMD|ENTRYPOINT)\b(?!.*\bfastapi\b)")


class Start(NamedTuple):
    """A line that starts a module: by its own name, or as one of a package."""

    file: Path
    text: str
    as_package: bool


def find_start(module: Path) -> Start | None:
    """How a module is started; None where no file says so.

    A start as a module of a package counts most: it names more of the path.
    """
    starts = [*starts_of(module)]
    return next((each for each in starts if each.as_package), next(iter(starts), None))


def starts_of(module: Path) -> Iterator[Start]:
    """The lines that start a module, those nearest to it first."""
    for file in start_files(module.parent):
        try:
            text = file.read_bytes()[:LONGEST].decode("utf-8", "replace")
        except OSError:
            continue
        lines = [line for line in text.splitlines() if not re.match(r"\s*#", line)]
        text = "\n".join(lines)
        for told, path in started_in(lines, module.stem):
            if is_meant(module, path, file, text):
                yield Start(file, told, len(path) > 1 and not told.endswith(".py"))


def start_files(start: Path) -> Iterator[Path]:
    """The files that may start a service: beside it, and above up to its repository."""
    for above in folders_of_repository(start):
        for folder in FOLDERS:
            for path in sorted((above / folder).glob("*")):
                if any(fnmatchcase(path.name, name) for name in NAMES):
                    if path.is_file() and not is_rendered(path):
                        yield path


def is_rendered(path: Path) -> bool:
    """Whether the template wrote a file, which says only what the answers say."""
    return path.with_name("migrate.bicep").is_file()


def folders_of_repository(folder: Path) -> list[Path]:
    """A folder and those above it up to its repository's; without one, two of them."""
    folders = [folder, *folder.parents]
    tops = [each for each in folders if (each / ".git").exists()]
    return folders[: folders.index(tops[0]) + 1 if tops else 3]


def started_in(lines: list[str], name: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What lines start and is called like a module, each with its path in parts."""
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
    """Whether a path in a start file is the module, and no other file of that name."""
    *folders, _ = path
    if tuple(folders) != module.parent.parts[len(module.parent.parts) - len(folders) :]:
        return False
    beside = file.parent.parent if file.parent.name in FOLDERS else file.parent
    named = beside.joinpath(*folders, module.name)
    if named == module or named.exists():
        return named == module
    folder = re.escape(module.parent.name)
    return bool(folders or re.search(rf"(?<![\w:]){folder}(?!\w)", text))
