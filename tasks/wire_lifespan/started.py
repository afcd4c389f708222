"""How a service is started, as far as the files of its repository say."""

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
# The folders of a repository that have such files, the repository's own first.
FOLDERS = (
    *(".", "scripts", "script", "bin", "docker", "deploy", "k8s"),
    *(".github/workflows", ".vscode"),
)
# Whose files without a suffix are scripts.
OF_SCRIPTS = ("scripts", "script", "bin")
# What says less: how the service's tests and scripts import its app, and a text for people.
IMPORTERS = ("*.py", "README*")
OF_IMPORTERS = (".", "tests", "test", "scripts", "script", "bin")
LONGEST = 200_000
# A line that starts a file of Python.
RUNS_A_FILE = re.compile(r"\b(python[\d.]*|uv run|CMD|ENTRYPOINT)\b")
FASTAPI = "fastapi run "


class Start(NamedTuple):
    """A line that starts a module: by its own name, or as one of a package."""

    file: Path
    text: str
    as_package: bool


def find_start(module: Path) -> Start | None:
    """How a module is started; None where no file says so.

    A start as a module of a package counts most: it names more of the path.
    """
    for names, folders in ((NAMES, FOLDERS), (IMPORTERS, OF_IMPORTERS)):
        starts = [*starts_of(module, start_files(module, names, folders))]
        if starts:
            return next((each for each in starts if each.as_package), starts[0])
    return None


def starts_of(module: Path, files: Iterator[tuple[Path, Path]]) -> Iterator[Start]:
    """The lines that start a module, in the order of the files."""
    for file, above in files:
        try:
            text = file.read_bytes()[:LONGEST].decode("utf-8", "replace")
        except OSError:
            continue
        lines = [line for line in text.splitlines() if not re.match(r"\s*#", line)]
        text = "\n".join(lines)
        for told, path in started_in(lines, module.stem):
            if is_meant(module, path, above, text):
                as_package = len(path) > 1 and not told.endswith(".py")
                if told.startswith(FASTAPI):
                    as_package = module.with_name("__init__.py").exists()
                yield Start(file, told, as_package)


def start_files(
    module: Path, names: tuple[str, ...], folders: tuple[str, ...]
) -> Iterator[tuple[Path, Path]]:
    """The files that may start a module, each with the folder that it is for.

    They are beside it, and above up to its repository.
    """
    for above in folders_of_repository(module.parent):
        for folder in folders:
            for path in sorted((above / folder).glob("*")):
                is_script = folder in OF_SCRIPTS and not path.suffix
                if is_script or any(fnmatchcase(path.name, name) for name in names):
                    if path.is_file() and path != module and not is_rendered(path):
                        yield path, above


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
    """Whether a path in a start file is the module, and no other file of that name.

    Args:
        above: The folder that the start file is for.
    """
    *folders, _ = path
    if tuple(folders) != module.parent.parts[len(module.parent.parts) - len(folders) :]:
        return False
    named = above.joinpath(*folders, module.name)
    if named == module or named.exists():
        return named == module
    folder = re.escape(module.parent.name)
    return bool(folders or re.search(rf"(?<![\w:]){folder}(?!\w)", text))
