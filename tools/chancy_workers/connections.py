"""Computes from a service's files and answers how many of a pooler's connections it needs."""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from .answers import Project
from .python_files import (
    Backend,
    Bound,
    Module,
    Scope,
    absolute,
    arguments,
    bindings_of,
    called,
    evaluate,
)

# During a deployment, the new release runs beside the previous one.
RELEASES = 2
# `migrate`, or a command typed by hand.
COMMANDS = 1
# The library's maximum in a process that only pushes.
_PUSHING = 4
# Supabase's pool size for a small project, which is also the default of Settings.
_POOLER_CONNECTIONS = 15
_ELSEWHERE = "other database"
# Chancy's own default.
_CHANCY = 10
_SYNC = ("sync_push", "sync_push_many")
# The maximum of Container Apps for an app without maxReplicas.
_PLATFORM_REPLICAS = 10
_APP_WITHOUT_MOST = re.compile(
    r"resource \w+ 'Microsoft\.App/containerApps@[^']*' = (?!.*\bmaxReplicas:)",
    re.DOTALL,
)
# The options with which uvicorn and gunicorn start several processes, in a command or a list.
_PROCESSES = re.compile(
    r"""(?:--workers(?:=|\s+|["'],?\s*["'])|\bWEB_CONCURRENCY(?:=|'\s+value:\s*)["']?)(\d+)"""
)


@dataclass(frozen=True)
class Part:
    """Connections of one replica.

    Args:
        size: How many; None if known only at run time.
        is_stated: Whether the files state the size; otherwise it is a default.
    """

    what: str
    size: int | None
    is_stated: bool = True

    def __str__(self) -> str:
        return f"{'?' if self.size is None else self.size} {self.what}"


@dataclass(frozen=True)
class Replicas:
    """The replicas of one kind, which all have the same parts.

    Args:
        parts: The connections of each process.
        processes: The number of processes in a replica.
    """

    what: str
    number: int
    parts: list[Part]
    processes: int

    def size(self, *, stated: bool = False) -> int:
        sizes = [each.size or 0 for each in self.parts if each.is_stated or not stated]
        return self.number * self.processes * sum(sizes)

    def __str__(self) -> str:
        processes = f" × {self.processes} processes" if self.processes > 1 else ""
        parts = " + ".join(map(str, self.parts))
        return f"{self.number} {self.what}{processes} × ({parts})"


@dataclass(frozen=True)
class Sum:
    """The connections that a service needs during a deployment.

    Args:
        limit: The pooler's connections for the service.
        is_known: Whether the files show that there is a pooler.
    """

    replicas: list[Replicas]
    scale_rules: int
    limit: int
    is_known: bool

    def size(self, *, stated: bool = False) -> int:
        """All connections; with `stated`, only those whose size the files state."""
        once = sum(each.size(stated=stated) for each in self.replicas)
        return RELEASES * (once + self.scale_rules) + COMMANDS

    def __str__(self) -> str:
        rule = f" + {self.scale_rules} scale rule" if self.scale_rules else ""
        return (
            f"needs up to {self.size()} of the pooler's {self.limit} connections during a "
            f"deployment: {RELEASES} × ({' + '.join(map(str, self.replicas))}"
            f"{rule}) + {COMMANDS} migrate"
        )


def sum_of(project: Project) -> Sum:
    """Adds up the connections of a service."""
    files = _Files(project)
    answers = project.answers
    settings = files.given("Settings")
    bicep = files.bicep
    replicas = settings.get("replicas", 1)
    replicas = replicas if isinstance(replicas, int) else 1
    # All processes that run workers are counted in `replicas`.
    numbers = {"API": replicas, "worker": 1}
    if files.kind == "own_process":
        numbers = {"API": 1, "worker": replicas}
    elif files.kind == "both":
        numbers["API"] = max(1, replicas - 1)
    value = settings.get("pooler_connections", answers.get("pooler_connections"))
    limit = value if isinstance(value, int) else None
    return Sum(
        [
            Replicas(
                what,
                bicep.get(what, numbers[what]),
                files.parts(what),
                files.processes if what == "API" else 1,
            )
            for what in ("API", "worker")
            if what == "API" or files.kind != "in_api"
        ],
        bicep.get("scale rule", 0),
        limit or _POOLER_CONNECTIONS,
        bool(limit) or "POOLER" in str(answers["database_secret"]).upper(),
    )


class _Files:
    """The files of a service that affect its connections."""

    def __init__(self, project: Project) -> None:
        self._project = project
        depth = len(project.package.split("."))
        self._backend = Backend(project.service.parents[depth - 1])
        self._initialization = f"{project.package}.workers.chancy_initialization"
        self.kind = str(project.answers.get("run_workers", "in_api"))

    def given(self, function: str) -> dict[str, Any]:
        """The values of the first such call's arguments; an unknown value is a Bound."""
        for call in self._calls_of(function):
            _, named = arguments(call) or ([], {})
            return {name: evaluate(value) for name, value in named.items()}
        return {}

    def _calls_of(self, function: str) -> Iterator[Bound]:
        """The calls of a function or class in chancy_initialization.py."""
        module = self._backend.module(self._initialization)
        for call in _calls(module) if module else ():
            if called(call).rpartition(".")[2] == function:
                yield call

    def parts(self, what: str) -> list[Part]:
        """The connections of one process of the API or of the workers."""
        pushes = what == "API" and self.kind == "own_process"
        given = self.given("Chancy").get("max_connection_pool_size", _CHANCY)
        size = given if isinstance(given, int) else None
        if size and pushes:
            size = min(size, _PUSHING)
        parts = [Part("pool", size)]
        if not pushes and (
            listening := self._workers("own" if what == "API" else "api")
        ):
            parts.append(Part("LISTEN", listening))
        modules = self._modules_of(what)
        if any(_pushes_in_threads(module) for module in modules):
            parts.append(Part("sync_push", size))
        return parts + [part for module in modules for part in self._pools(module)]

    def _workers(self, elsewhere: str) -> int:
        """The number of Workers in a process: those that are not for the other process."""
        named = [(arguments(call) or ([], {}))[1] for call in self._calls_of("Worker")]
        if self.kind != "both":
            return len(named)
        processes = [evaluate(each["process"]) for each in named if "process" in each]
        return len(named) - processes.count(elsewhere)

    def _modules_of(self, what: str) -> list[Module]:
        """The modules of the backend that the app or the jobs import."""
        workers = [
            f"{self._project.package}.workers.{path.parent.name}.worker"
            for path in sorted(self._project.service.glob("workers/*/worker.py"))
        ]
        waiting = [self._initialization]
        if what == "worker" or self.kind != "own_process":
            waiting += workers
        main, root = self._project.main, self._backend.root
        if what == "API" and root in main.parents:
            waiting.append(".".join(main.relative_to(root).with_suffix("").parts))
        found: dict[str, Module] = {}
        while waiting:
            module = self._backend.module(waiting.pop())
            if module is not None and module.dotted not in found:
                found[module.dotted] = module
                waiting += _imported(module)
        return [found[dotted] for dotted in sorted(found)]

    def _pools(self, module: Module) -> Iterator[Part]:
        """The pools that a module opens itself."""
        file = module.path.relative_to(self._backend.root).as_posix()
        for call in _calls(module):
            size_of = _SIZES.get(called(call))
            line = call.node.lineno
            if size_of is None or _ELSEWHERE in module.line(line):
                continue
            positional, named = arguments(call) or ([], {"**": call})
            if positional and str(evaluate(positional[0])).startswith("sqlite"):
                continue
            values = {name: evaluate(value) for name, value in named.items()}
            size, is_stated = (None, False) if "**" in values else size_of(values)
            is_known = isinstance(size, int) and size > 0
            yield Part(f"{file}:{line}", size if is_known else None, is_stated)

    @property
    def processes(self) -> int:
        """The number of processes that a replica of the API starts."""
        folder = self._project.folder
        images = (folder / "Dockerfile", folder / "deploy" / "Dockerfile")
        files = [*filter(Path.is_file, images), *folder.glob("deploy/*.bicep")]
        found = [number for path in files for number in _PROCESSES.findall(_code(path))]
        return max([1, *map(int, found)])

    @cached_property
    def bicep(self) -> dict[str, int]:
        """The maximum replicas of the API and of the worker, and the number of scale rules."""
        found: dict[str, int] = {}
        for path in sorted(self._project.folder.glob("deploy/*.bicep")):
            text = _code(path)
            for parameters in (*path.parent.glob("*.bicepparam"), path):
                values = re.findall(
                    r"(?m)^(?:param|var) (\w+)(?: int)? *= *(\d+)",
                    parameters.read_text(errors="replace"),
                )
                for name, value in values:
                    text = re.sub(
                        rf"(\bmaxReplicas: *){name}\b", rf"\g<1>{value}", text
                    )
            for block in re.split(r"(?m)^(?=resource |module )", text):
                name = re.match(r"(?:resource|module) (\w+)", block)
                most = re.search(r"\bmaxReplicas: *(\d+)", block)
                if name and (most or _APP_WITHOUT_MOST.match(block)):
                    what = "worker" if "worker" in name[1].lower() else "API"
                    number = int(most[1]) if most else _PLATFORM_REPLICAS
                    found[what] = found.get(what, 0) + number
                    rules = len(re.findall(r"\btype: *'postgresql'", block))
                    found["scale rule"] = found.get("scale rule", 0) + rules
        return found


def _code(path: Path) -> str:
    """The text of a Dockerfile or a Bicep file without comment lines."""
    return re.sub(r"(?m)^\s*(#|//).*", "", path.read_text(errors="replace"))


def _calls(module: Module) -> Iterator[Bound]:
    """The calls in a module; each can resolve the names of all imports in the module."""
    names = {
        name: binding
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name, binding in bindings_of(node, module.scope)
    }
    scope = Scope(module, names)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            yield Bound(node, scope)


def _imported(module: Module) -> Iterator[str]:
    """The modules that a module imports, and the packages around them."""
    for node in ast.walk(module.tree):
        match node:
            case ast.ImportFrom(names=aliases):
                base = absolute(node, module.package)
                paths = [base, *(f"{base}.{each.name}" for each in aliases)]
            case ast.Import(names=aliases):
                paths = [each.name for each in aliases]
            case _:
                continue
        for path in paths:
            parts = path.split(".")
            if parts[0]:
                yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))


def _pushes_in_threads(module: Module) -> bool:
    """Whether a module pushes without asyncio; then Chancy opens a second pool."""
    return any(
        isinstance(call.node, ast.Call)
        and isinstance(call.node.func, ast.Attribute)
        and call.node.func.attr in _SYNC
        for call in _calls(module)
    )


def _of_psycopg(given: Mapping[str, Any]) -> tuple[Any, bool]:
    size = given.get("max_size")
    return given.get("min_size", 4) if size is None else size, size is not None


def _of_sqlalchemy(given: Mapping[str, Any]) -> tuple[Any, bool]:
    if "poolclass" in given:
        return None, False
    size, more = given.get("pool_size", 5), given.get("max_overflow", 10)
    is_known = isinstance(size, int) and isinstance(more, int) and size and more >= 0
    return size + more if is_known else None, "pool_size" in given


def _of_asyncpg(given: Mapping[str, Any]) -> tuple[Any, bool]:
    return given.get("max_size", 10), "max_size" in given


# Functions that make a pool, and the maximum size of the pool from their arguments.
_SIZES = {
    "psycopg_pool.AsyncConnectionPool": _of_psycopg,
    "psycopg_pool.ConnectionPool": _of_psycopg,
    "sqlalchemy.create_engine": _of_sqlalchemy,
    "sqlalchemy.ext.asyncio.create_async_engine": _of_sqlalchemy,
    "sqlmodel.create_engine": _of_sqlalchemy,
    "asyncpg.create_pool": _of_asyncpg,
}
