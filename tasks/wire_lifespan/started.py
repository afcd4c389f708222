"""Finds in the files of a repository how a service is started."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

# Also those of systemd, supervisor, Kubernetes, Fly, Railway, Render and GitHub's workflows.
NAMES = (
    *("Dockerfile*", "*.Dockerfile", "*.dockerfile", "Containerfile*", "Procfile*"),
    *("Makefile", "[Jj]ustfile", "*.sh", "*.bat", "*.ps1", "startup.txt"),
    *("*.toml", "*.y*ml", "*.json", "*.ini", "*.conf", "*.service"),
)
# The folders of a repository that may have such files, the top folder first.
FOLDERS = (
    *(".", "scripts", "script", "bin", "docker", "deploy", "k8s"),
    *(".github/workflows", ".vscode"),
)
# Files without a suffix are scripts in these folders.
OF_SCRIPTS = ("scripts", "script", "bin")
# Read only if the files above show no start: tests and scripts that import the app, a README.
IMPORTERS = ("*.py", "README*")
OF_IMPORTERS = (".", "tests", "test", "scripts", "script", "bin")
LONGEST = 200_000
# A line that runs a Python file.
RUNS_A_FILE = re.compile(r"\b(python[\d.]*|uv run|CMD|ENTRYPOINT)\b")
FASTAPI = "fastapi run "


class Start(NamedTuple):
    """Starts a module, by its own name or as a module of a package."""

    file: Path
    text: str
    as_package: bool


def find_start(module: Path) -> Start | None:
    """How a module is started; None if no file shows it.

    A start as a module of a package is preferred, because it names more of the path.
    """
    for names, folders in ((NAMES, FOLDERS), (IMPORTERS, OF_IMPORTERS)):
        starts = [*starts_of(module, start_files(module, names, folders))]
        if starts:
            return next((each for each in starts if each.as_package), starts[0])
    return None


def starts_of(module: Path, files: Iterator[tuple[Path, Path]]) -> Iterator[Start]:
    """The starts of a module, in the order of the files."""
    for file, above in files:
        try:
            text = file.read_bytes()[:LONGEST].decode("utf-8", "replace")
        except OSError:
            continue
        lines = [line for line in text.splitlines() if not re.match(r"\s*#", line)]
        text = "\n".join(lines)
        for target, path in started_in(lines, module.stem):
            if is_meant(module, path, above, text):
                as_package = len(path) > 1 and not target.endswith(".py")
                if target.startswith(FASTAPI):
                    as_package = module.with_name("__init__.py").exists()
                yield Start(file, target, as_package)


def start_files(
    module: Path, names: tuple[str, ...], folders: tuple[str, ...]
) -> Iterator[tuple[Path, Path]]:
    """Files that may start a module, each with the folder from which it starts it.

    They are beside the module and above it in its repository.
    """
    for above in folders_of_repository(module.parent):
        for folder in folders:
            for path in sorted((above / folder).glob("*")):
                is_script = folder in OF_SCRIPTS and not path.suffix
                if is_script or any(fnmatchcase(path.name, name) for name in names):
                    if path.is_file() and path != module and not is_rendered(path):
                        yield path, above


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
        for target in re.findall(
            rf"(?:-m\W+|^\s*from |^\s*import )((?:\w+\.)*{stem})(?![\w.])", line
        ):
            yield target, tuple(target.split("."))
        # FastAPI's own command looks for __init__.py.
        runs = FASTAPI if re.search(r"\bfastapi\W+(run|dev)\b", line) else ""
        if runs or RUNS_A_FILE.search(line):
            for script in re.findall(rf"(?<![\w./-])([\w./-]*\b{stem}\.py)\b", line):
                parts = [part for part in script.split("/") if part not in ("", ".")]
                path = parts[-1:] if script[0] == "/" else parts
                yield f"{runs}{script}", (*path,)


def is_meant(module: Path, path: tuple[str, ...], above: Path, text: str) -> bool:
    """Whether a path in a start file means this module and not another file of that name.

    Args:
        above: The folder from which the start file starts it.
    """
    *folders, _ = path
    if tuple(folders) != module.parent.parts[len(module.parent.parts) - len(folders) :]:
        return False
    named = above.joinpath(*folders, module.name)
    if named == module or named.exists():
        return named == module
    folder = re.escape(module.parent.name)
    return bool(folders or re.search(rf"(?<![\w:]){folder}(?!\w)", text))
