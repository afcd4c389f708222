"""The service whose workers are wired, and the modules of its project."""

from __future__ import annotations

import ast
import functools
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .source import Source, full_name, module_of, read, row_of
from .texts import ENTERED, OLD_ROUTER, OTHERS, Form, Stop


class Service(NamedTuple):
    """A service: its name, its folder, the file to wire, and which app in it."""

    name: str
    folder: Path
    file: Path
    app: str = ""

    def is_meant(self, origin: str) -> bool:
        """Whether a dotted name is one of the two entries of this service's workers."""
        return self.has(origin, ENTERED, OLD_ROUTER)

    def has(self, origin: str, *forms: Form) -> bool:
        """Whether a dotted name is one of these names in the service's workers."""
        *path, name = origin.lstrip(".").split(".")
        if name not in {form.name for form in forms}:
            return False
        workers = self.folder / "workers"
        places = (workers, *(workers / form.module for form in forms))
        level = len(origin) - len(origin.lstrip("."))
        base = folder_above(self.file, max(level, 1))
        if level or path[:1] == ["workers"]:
            return base.joinpath(*path) in places
        return "workers" in path and any(
            place.parts[-len(path) :] == (*path,) for place in places
        )

    def uses(self, source: Source) -> list[ast.AST]:
        """The nodes of a file that use one of the entries, in any form."""
        return [
            node
            for node in source.nodes
            if isinstance(node, (ast.Name, ast.Attribute))
            and isinstance(node.ctx, ast.Load)
            and self.is_meant(source.origin(node))
        ]

    def imported(self, source: Source, form: Form) -> str:
        """The name under which a file imports such a name, "" if it does not."""
        for node in source.tree.body:
            if isinstance(node, ast.ImportFrom):
                for each in node.names:
                    if self.has(full_name(node, each), form):
                        return each.asname or each.name
        return ""


def folder_above(file: Path, level: int) -> Path:
    """The folder to which `level` dots of a relative import refer."""
    return file.parents[min(level, len(file.parents)) - 1]


def service_of(file: Path, name: str, package: str, app: str) -> Service:
    """Finds the folder that holds, or will hold, the service's `workers`."""
    file = Path(os.path.realpath(file.parent)) / file.name
    if package:
        places = (parent.joinpath(*package.split(".")) for parent in file.parents)
        folder = next((place for place in places if place.is_dir()), file.parent)
        return Service(name, folder, file, app)
    here, beside = file.parent, file.parent / name
    is_beside = here.name != name and (beside / "workers").is_dir()
    return Service(name, beside if is_beside else here, file, app)


def wired_elsewhere(source: Source, service: Service) -> str:
    """Where another module of the project wires the workers, "" for nowhere."""
    for path, module in project_modules(source, service):
        if uses := service._replace(file=path).uses(module):
            return f"{path.name} line {row_of(uses[0])}"
        exported = {
            name
            for name, origin in module.origins.items()
            if service._replace(file=path).is_meant(origin)
        }
        for name, origin in source.origins.items():
            if origin.rpartition(".")[2] in exported and path.stem in (
                origin.split(".")[-2],
                "__init__",
            ):
                return f"{service.file.name}, as {name}"
    return ""


@functools.cache
def project_modules(source: Source, service: Service) -> list[tuple[Path, Source]]:
    """The project's modules that a file reaches and that mention lifespans or workers."""
    found = []
    for path, data in reached_modules(source, service.file):
        if re.search(rb"lifespan|initialize_workers|workers_router", data):
            try:
                found.append((path, read(data)[0]))
            except Stop:
                continue
    return found


def reached_modules(source: Source, file: Path) -> Iterator[tuple[Path, bytes]]:
    """The project's modules that a file imports, directly or through others.

    The template's own modules are left out.
    """
    imports = [each for node in source.nodes for each in imports_of(node)]
    seen = {file}
    rest = [(file, imports)]
    while rest and len(seen) < MOST_MODULES:
        file, imports = rest.pop(0)
        paths = [path for each in imports for path in found_in(file, *each)[1]]
        for path in dict.fromkeys(paths):
            if path in seen or path.match("workers/chancy_*.py"):
                continue
            seen.add(path)
            try:
                data = path.read_bytes()
            except OSError:
                continue
            rest.append((path, imports_in(data)))
            yield path, data


def imports_in(data: bytes) -> list[tuple[str, list[str]]]:
    """The imports in a module's text, like `imports_of`, but without a syntax tree."""
    text = data.decode("utf-8", "replace")
    return [
        (module or name, re.findall(r"\w+", re.sub(r"#.*| as \w+", "", names)))
        for module, names, name in re.findall(
            r"(?m)^[ \t]*(?:from[ \t]+([.\w]+)[ \t]+import[ \t]+(\([^)]*\)|[^\n(]+)"
            r"|import[ \t]+([.\w]+))",
            text,
        )
    ]


MOST_MODULES = 100


def imports_of(node: ast.AST) -> list[tuple[str, list[str]]]:
    """The modules that a statement imports, each with the imported names."""
    if isinstance(node, ast.ImportFrom):
        return [(module_of(node), [each.name for each in node.names])]
    if isinstance(node, ast.Import):
        return [(each.name, []) for each in node.names]
    return []


def found_in(file: Path, module: str, names: list[str]) -> tuple[Path, list[Path]]:
    """The root folder of a project's module, and the files that importing it reads."""
    for root in roots_of(file, module):
        base = root.joinpath(*module.strip(".").split("."))
        paths = [base.with_name(f"{base.name}.py"), base / "__init__.py"]
        for name in names:
            paths += [base / f"{name}.py", base / name / "__init__.py"]
        if found := [path for path in paths if path.is_file()]:
            return root, found
    return Path(), []


def roots_of(file: Path, module: str) -> list[Path]:
    """The folders in which a module may be found, the nearest first."""
    level = len(module) - len(module.lstrip("."))
    if level:
        return [folder_above(file, level)]
    if module.partition(".")[0] in LIBRARIES or module in sys.stdlib_module_names:
        return []
    return list(file.parents)[:MOST_LEVELS]


# Folders may have these names, too, but an import of the name means the library.
LIBRARIES = {
    *("fastapi", "starlette", "pydantic", "uvicorn", "chancy", "chancy_runtime"),
    *OTHERS,
}
MOST_LEVELS = 8
