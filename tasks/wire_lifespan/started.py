"""Finds in the files of a repository how a service is started."""

from __future__ import annotations

import os
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
# A longer line is data, and slow to search.
LONGEST_LINE = 2000
SERVER = re.compile(
    r"\b(?:uvicorn|gunicorn|hypercorn|granian|daphne|fastapi)(?![\w-])"
    r"|\b(?:APP_MODULE|app_module|wsgi_app|entrypoint)\W*[=:]"
)
# Between the words of a command, which may be a list of JSON or YAML.
GAP = r"""[\s"',\[]+"""
OPTIONS = rf"""(?:{GAP}-(?:[WX]{GAP}\w+|[^\s"',\[]+))*"""
PYTHON = rf"\b(?:python[\d.]*(?:exe)?|uv{GAP}run)"
# What a path may begin with that is not read, such as ${HOME}.
VARIABLE = r"""(?:[^\s"',]*[^\s"',\w./-])?"""


class Start(NamedTuple):
    """Starts a module, by its own name or as a module of a package."""

    file: Path
    text: str
    as_package: bool

    @property
    def how(self) -> str:
        """The verb for a message: Python files and a README only name the module."""
        is_importer = any(fnmatchcase(self.file.name, name) for name in IMPORTERS)
        return "names" if is_importer else "starts"


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
        text = text_with(module.stem, file)
        for target, path, as_package in started_in(text, module):
            if is_meant(module, path, above, text):
                yield Start(file, target, as_package)


def text_with(stem: str, file: Path) -> str:
    """A file's text in whole commands without comments, "" if it lacks the stem."""
    try:
        with file.open("rb") as stream:
            data = stream.read(LONGEST)
    except OSError:
        return ""
    if b"\0" in data or stem.encode() not in data:
        return ""
    lines = data.decode("utf-8", "replace").splitlines()
    kept = [line for line in lines if not re.match(r"\s*#", line)]
    return "\n".join(kept).replace("\\\n", " ")


def start_files(
    module: Path, names: tuple[str, ...], folders: tuple[str, ...]
) -> Iterator[tuple[Path, Path]]:
    """Files that may start a module, each with the folder from which it starts it.

    They are beside the module and above it in its repository.
    """
    for above in folders_of_repository(module.parent):
        for folder in folders:
            for path in listed(above / folder):
                is_script = folder in OF_SCRIPTS and not path.suffix
                if is_script or any(fnmatchcase(path.name, name) for name in names):
                    is_file = os.path.isfile(path)  # Unlike Path's, it never raises.
                    if is_file and path != module and not is_rendered(path):
                        yield path, above


def listed(folder: Path) -> list[Path]:
    """What is in a folder; nothing if it cannot be read."""
    try:
        return [folder / name for name in sorted(os.listdir(folder))]
    except OSError:
        return []


def is_rendered(path: Path) -> bool:
    """Whether the template wrote a file; such a file only repeats the answers."""
    return os.path.isfile(path.with_name("migrate.bicep"))


def folders_of_repository(folder: Path) -> list[Path]:
    """A folder and those above it, up to the repository's top; without one, two more.

    The root of the file system is never one, because its bin is the machine's.
    """
    folders = [each for each in (folder, *folder.parents) if each != each.parent]
    tops = [each for each in folders if (each / ".git").exists()]
    return folders[: folders.index(tops[0]) + 1 if tops else 3]


def is_in_its_package(module: Path) -> bool:
    """Whether a folder above a module has its name, so that the name means the folder."""
    folders = folders_of_repository(module.parent)
    return module.stem in {each.name for each in folders[:-1]}


Found = Iterator[tuple[str, tuple[str, ...], bool]]


def started_in(text: str, module: Path) -> Found:
    """The started targets that have a module's name.

    Each has its path in parts, and whether it starts the module as one of a package.
    """
    is_served = bool(SERVER.search(text))
    for line in text.splitlines():
        if module.stem in line and len(line) <= LONGEST_LINE:
            yield from apps_in(line, module, is_served)
            yield from modules_in(line, module)
            yield from files_in(line, module)


def apps_in(line: str, module: Path, is_served: bool) -> Found:
    """Targets such as main:app, which may also be branches of git or an image's tag."""
    stem = re.escape(module.stem)
    for target in re.findall(rf"(?<![\w./-])((?:\w+\.)*{stem}:[a-zA-Z_]\w*)", line):
        path = (*target.partition(":")[0].split("."),)
        is_item = is_served and is_list_item(target, line)
        if len(path) > 1 or SERVER.search(line) or is_item:
            yield target, path, len(path) > 1


def is_list_item(target: str, line: str) -> bool:
    """Whether a target is a whole item of a list in YAML or JSON."""
    target = re.escape(target)
    in_yaml = rf"""^\s*-\s+(["']?){target}\1\s*$"""
    in_json = rf"""(?:^|[\[,])\s*(["']){target}\1\s*(?:[,\]]|$)"""
    return bool(re.search(in_yaml, line) or re.search(in_json, line))


def modules_in(line: str, module: Path) -> Found:
    """Modules that are imported, or run with -m."""
    name = rf"((?:\w+\.)*{re.escape(module.stem)})"
    found = [
        *re.findall(rf"^\s*from {name} import\b", line),
        *re.findall(rf"^\s*import {name}\s*(?:$|[,;#]|as\b)", line),
    ]
    for target in re.findall(rf"-m\W+{name}(?![\w.])", line):
        if "." in target or re.search(rf"{PYTHON}\b", line):  # Not git commit -m.
            found.append(target)
    for target in found:
        path = (*target.split("."),)
        if len(path) > 1 or not is_in_its_package(module):
            yield target, path, len(path) > 1


def files_in(line: str, module: Path) -> Found:
    """Files that Python or FastAPI's own command runs."""
    script = rf"((?:[\w./-]*/)?{re.escape(module.name)})(?!\w|\.\w)"
    end = rf"{GAP}{VARIABLE}{script}"
    for found in re.finditer(rf"(?:{PYTHON}|CMD|ENTRYPOINT){OPTIONS}{end}", line):
        yield found[1], path_of(found[1]), False
    for found in re.finditer(rf"\bfastapi{GAP}(?:run|dev)\b.*?{end}", line):
        # It looks for __init__.py beside the file.
        as_package = os.path.exists(module.with_name("__init__.py"))
        yield re.sub(GAP, " ", found[0]), path_of(found[1]), as_package


def path_of(script: str) -> tuple[str, ...]:
    """The parts of a script's path; only the last of one that is absolute."""
    parts = [part for part in script.split("/") if part not in ("", ".")]
    return (*(parts[-1:] if script[0] == "/" else parts),)


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
