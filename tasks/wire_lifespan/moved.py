"""Finds imports of modules that v0.5.0 moved from a service's `workers` into the library."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

from .service import Service, folder_above
from .source import Source, full_name, module_of, read
from .texts import ENTERED, ROUTER, Form, Stop

LIBRARY = "chancy_runtime"
GET_CHANCY = Form("chancy_instance", "get_chancy", "get_{}_chancy")
# The names of each old module that the library has; it has none from private modules.
MOVED: dict[str, tuple[str, ...]] = {
    "chancy_app": ("Chancy",),
    "chancy_cron": ("Cron", "CronJob", "schedule_cron_jobs"),
    "chancy_database": ("database_url", "get_secret_value"),
    "chancy_errors": ("WorkersError",),
    "chancy_health": ("find_problems", "health_router"),
    "chancy_leadership": ("Leadership",),
    "chancy_maintenance": ("Pruner", "Recovery"),
    "chancy_queues": ("declare_queues",),
    "chancy_router": ("workers_router",),
    "chancy_sentry": ("SentryPlugin",),
    "chancy_settings": ("Settings",),
    "chancy_start": ("check_database", "join_when_database_is_there"),
    "chancy_tables": ("migrate",),
    "chancy_worker": ("Worker", "together"),
    **dict.fromkeys(
        (
            *("chancy_children", "chancy_claims", "chancy_connections"),
            *("chancy_deployment", "chancy_executors", "chancy_feeding"),
            *("chancy_hooks", "chancy_jobs", "chancy_listening", "chancy_monitor"),
            *("chancy_pooler", "chancy_rate_limit", "chancy_requirements"),
            *("chancy_results", "chancy_security", "chancy_signals"),
            *("chancy_supervisor", "chancy_tasks", "chancy_watchdog"),
        ),
        (),
    ),
}
OF_WEB = ("chancy_health", "chancy_router")
# Names that are now functions, each with the service's function that it takes as argument.
TAKES = {
    "find_problems": GET_CHANCY,
    "health_router": GET_CHANCY,
    "workers_router": ENTERED,
}


class OldImport(NamedTuple):
    """A line that names an old module, and its replacement."""

    line: int
    text: str
    write: str

    def __str__(self) -> str:
        return f"{self.line}: {self.text} -> {self.write}"


def old_module(service: Service, module: str) -> str:
    """The old module of the service to which a dotted name refers, "" for none."""
    *path, name = module.lstrip(".").split(".")
    if name not in MOVED:
        return ""
    workers = service.folder / "workers"
    level = len(module) - len(module.lstrip("."))
    if level:
        is_it = folder_above(service.file, level).joinpath(*path) == workers
    elif path == ["workers"]:
        is_it = service.folder in service.file.parents
    else:
        is_it = path[-1:] == ["workers"] and workers.parts[-len(path) :] == (*path,)
    return name if is_it else ""


def is_old_module(service: Service) -> bool:
    """Whether the file itself is an old module; an update keeps edited ones."""
    file = service.file
    return file.stem in MOVED and file.parent == service.folder / "workers"


def new_module(old: str) -> str:
    return ROUTER.module if old in OF_WEB else LIBRARY


def find_old_imports(data: bytes, service: Service) -> list[OldImport]:
    """The imports and strings in a file that name an old module, by line."""
    if is_old_module(service):
        return []
    try:
        source, _ = read(data)
    except Stop:
        return in_lines(data, service)
    found = [
        *(described(node, old) for node, old in old_imports(source, service)),
        *other_references(source, service),
    ]
    return sorted(found)


def old_imports(source: Source, service: Service) -> list[tuple[ast.ImportFrom, str]]:
    """The imports from old modules, each with the module's name."""
    found = [
        (node, old_module(service, module_of(node)))
        for node in source.nodes
        if isinstance(node, ast.ImportFrom)
    ]
    return [(node, old) for node, old in found if old]


def described(node: ast.ImportFrom, old: str) -> OldImport:
    return OldImport(node.lineno, ast.unparse(node), in_place_of(old, node.names))


def in_place_of(old: str, names: list[ast.alias]) -> str:
    """The replacement of an import of names from an old module."""
    moved = [each for each in names if each.name in MOVED[old]]
    others = [each.name for each in names if each.name not in MOVED[old]]
    parts = []
    if moved:
        parts.append(
            f"from {new_module(old)} import {', '.join(map(ast.unparse, moved))}"
        )
    for each in moved:
        if form := TAKES.get(each.name):
            name = each.asname or each.name
            before = f"{name}()" if each.name == "find_problems" else name
            parts.append(f"{name}({form.name}) instead of {before}")
    if others:
        parts.append(f"{LIBRARY} has no replacement for {', '.join(others)}")
    return "; ".join(parts)


def other_references(source: Source, service: Service) -> Iterator[OldImport]:
    """Imports of whole old modules, and strings that name them."""
    for node in source.nodes:
        if isinstance(node, ast.Import):
            names = [each.name for each in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [full_name(node, each) for each in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = re.findall(
                r"\A((?:\w+\.)*workers\.chancy_\w+)(?:\.\w+)?\Z", node.value
            )
        else:
            continue
        for name in names:
            if old := old_module(service, name):
                write = names_of(old) if isinstance(node, ast.stmt) else OF_A_STRING
                yield OldImport(node.lineno, ast.unparse(node), write)


OF_A_STRING = "this module no longer exists: name the module that uses its contents"


def names_of(old: str) -> str:
    if not MOVED[old]:
        return f"{LIBRARY} has no replacement for it"
    return f"from {new_module(old)} import {', '.join(MOVED[old])}"


def in_lines(data: bytes, service: Service) -> list[OldImport]:
    """The imports in a file that cannot be parsed, such as one with merge conflicts."""
    found = []
    for row, line in enumerate(data.decode("utf-8", "replace").splitlines(), 1):
        parts = re.match(r"\s*from\s+([.\w]+)\s+import\s+([^#]+)", line)
        if parts and (old := old_module(service, parts[1])):
            names = re.findall(r"(\w+)(?:\s+as\s+(\w+))?", parts[2])
            aliases = [ast.alias(name, asname or None) for name, asname in names]
            write = in_place_of(old, aliases) or names_of(old)
            found.append(OldImport(row, line.strip(), write))
    return found
