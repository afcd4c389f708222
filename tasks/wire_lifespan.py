"""Wires a service's workers into its FastAPI app, or leaves the file alone and says why.

    python tasks/wire_lifespan.py app/billing/main.py --service billing

The one `yield` of the app's lifespan is wrapped in `async with initialize_workers():`;
an app of any other shape includes the workers' router, whose lifespan does the same.
Nothing else in the file changes: with the wiring taken out again its syntax tree must
equal the old one, or nothing is written. A second run changes nothing.

Exit status: 0 wired (--remove: taken out), 3 wired already, 4 left alone, 5 nothing to
do, 2 wrong usage; --check: 0 wired, 1 not; as a task of Copier's always 0.
"""

from __future__ import annotations

import argparse
import ast
import functools
import io
import os
import re
import sys
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

# --- every text that ends up in a team's file -------------------------------------------

ENTER = "async with {name}():"
INCLUDE = "{app}.include_router({name})"
IMPORT = "from {module} import {name}"
IMPORT_AS = "from {module} import {name} as {alias}"
OPENED = "from {module} import ("
CLOSED = ")"


class Form(NamedTuple):
    """One of the two ways to wire: what is imported, and its name for a second service."""

    module: str
    name: str
    alias: str


ENTERED = Form("chancy_initialization", "initialize_workers", "initialize_{}_workers")
INCLUDED = Form("chancy_router", "workers_router", "{}_workers_router")

# --- what is said -----------------------------------------------------------------------

WIRED, ALREADY, LEFT, NOTHING = "wired", "already wired", "left alone", "nothing to do"
STATUS = {WIRED: 0, ALREADY: 3, LEFT: 4, NOTHING: 5}
# The first release that runs the lifespans of included routers.
OLDEST_FASTAPI = (0, 112, 2)
OTHERS = {
    "flask": "Flask",
    "starlette": "Starlette",
    "quart": "Quart",
    "sanic": "Sanic",
    "litestar": "Litestar",
    "aiohttp": "aiohttp",
    "django": "Django",
    "falcon": "Falcon",
    "bottle": "Bottle",
    "tornado": "Tornado",
}
OTHER_APPS = ("Application", "get_asgi_application", "get_wsgi_application")
BY_HAND = """\
To wire it by hand, put this around the yield of the app's lifespan, after all set-up:
    {enter}
with this import: {import_entered}
or include this router after everything else that the app gets (FastAPI 0.112.2 or later):
    {include}
with this import: {import_included}"""
UNKNOWN_VERSION = """
Which FastAPI it runs on was not found in a lock file, requirements or a virtual
environment: before 0.112.2 the start fails and says so."""
BUG = """\
{file} is left as it is: the wiring of this shape could not be proven ({reason}).
That is a fault of this program: please report it with the file's first lines, its app
and its lifespan."""


class Stop(Exception):
    """The end of a run that does not write: the outcome, and the sentence about it."""

    def __init__(self, outcome: str, text: str, *, by_hand: bool = False) -> None:
        super().__init__(text)
        self.outcome = outcome
        self.by_hand = by_hand


class NotProven(Exception):
    """An edit that would change more than it should."""


# --- the file ---------------------------------------------------------------------------


class Source:
    """A Python file in lines, with its syntax tree.

    `lines` are without their ends, `ends` are "\\n", "\\r\\n", "\\r" or, at the file's end,
    "". Rows count from 0.
    """

    def __init__(self, lines: list[str], ends: list[str]) -> None:
        self.lines = lines
        self.ends = ends
        self.tree = ast.parse("\n".join(lines) + ("\n" if ends[-1:] != [""] else ""))
        self.nodes = list(ast.walk(self.tree))
        self.parents = {
            child: node for node in self.nodes for child in ast.iter_child_nodes(node)
        }
        self.suite_of = {
            id(each): value
            for node in self.nodes
            for _, value in ast.iter_fields(node)
            if isinstance(value, list)
            for each in value
            if isinstance(each, ast.stmt)
        }
        self.origins = dict(self._origins())

    @property
    def text(self) -> str:
        return "".join(map("".join, zip(self.lines, self.ends, strict=True)))

    def _origins(self) -> Iterator[tuple[str, str]]:
        """What each imported name stands for, with leading dots where it is relative."""
        for node in self.nodes:
            if isinstance(node, ast.Import):
                for each in node.names:
                    name = each.asname or each.name.partition(".")[0]
                    yield name, each.name if each.asname else name
            elif isinstance(node, ast.ImportFrom):
                for each in node.names:
                    yield each.asname or each.name, full_name(node, each)
                for name in STARS.get(module_of(node).rpartition(".")[2], ()):
                    if node.names[0].name == "*":
                        yield name, f"{module_of(node)}.{name}"

    def origin(self, node: ast.AST) -> str:
        """The dotted name that an expression stands for, "" when it is none."""
        if isinstance(node, ast.Name):
            return self.origins.get(node.id, node.id)
        if isinstance(node, ast.Attribute) and (base := self.origin(node.value)):
            return f"{base}.{node.attr}"
        return ""

    def statement(self, node: ast.AST) -> ast.stmt:
        while not isinstance(node, ast.stmt):
            node = self.parents[node]
        return node

    def scope(self, node: ast.AST) -> ast.AST:
        """The function, class or module in whose body a node stands."""
        node = self.parents[node]
        while not isinstance(node, Scope):
            node = self.parents[node]
        return node

    def suites(self, statement: ast.stmt) -> list[list[ast.stmt]]:
        """The suites around a statement in its scope, the outermost first."""
        scope = self.scope(statement)
        found = [self.suite_of[id(statement)]]
        node: ast.AST = statement
        while self.parents[node] is not scope:
            node = self.parents[node]
            if isinstance(node, ast.stmt):
                found.insert(0, self.suite_of[id(node)])
        return found

    def begins_its_line(self, statement: ast.stmt) -> bool:
        line = self.lines[statement.lineno - 1].encode()
        return not line[: statement.col_offset].strip(b" \t\f")

    def after(self, statement: ast.stmt) -> str:
        """What follows a statement on its last line."""
        assert statement.end_lineno and statement.end_col_offset is not None
        line = self.lines[statement.end_lineno - 1].encode()
        return line[statement.end_col_offset :].decode().strip()

    def has_its_lines(self, statement: ast.stmt) -> bool:
        """Whether nothing but a comment shares the lines of a statement."""
        rest = self.after(statement)
        return self.begins_its_line(statement) and (not rest or rest[0] == "#")


# What a star import of these modules brings, as far as it matters here.
STARS = {
    "fastapi": ["FastAPI"],
    ENTERED.module: [ENTERED.name],
    INCLUDED.module: [INCLUDED.name],
}
Function = (ast.FunctionDef, ast.AsyncFunctionDef)
Scope = (*Function, ast.Lambda, ast.ClassDef, ast.Module)


def read(data: bytes) -> tuple[Source, str]:
    """Returns a file's source and encoding.

    Raises:
        Stop: It cannot be decoded or parsed.
    """
    try:
        head = re.sub(rb"\r\n?", b"\n", data)  # Python ends lines at a lone CR too.
        encoding, _ = tokenize.detect_encoding(io.BytesIO(head).readline)
        text = data.decode(encoding)
        if text.encode(encoding) != data:
            raise ValueError(f"{encoding} does not give the same bytes back")
    except (SyntaxError, ValueError, LookupError) as error:
        raise Stop(LEFT, f"it cannot be decoded: {error}") from None
    parts = re.findall(r"([^\r\n]*)(\r\n|\r|\n|\Z)", text)
    if parts and parts[-1] == ("", ""):
        parts.pop()
    lines, ends = [line for line, _ in parts], [end for _, end in parts]
    try:
        return Source(lines, ends), encoding
    except SyntaxError as error:
        raise Stop(LEFT, syntax_problem(text, lines, error)) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise Stop(LEFT, f"it cannot be parsed: {error}") from None


def syntax_problem(text: str, lines: list[str], error: SyntaxError) -> str:
    """Tells newer syntax and template placeholders from a mistake."""
    row = min(error.lineno or 1, len(lines)) - 1
    near = "\n".join(lines[max(row - 1, 0) : row + 1])
    if re.search(r"\{%.*%\}|\{\{[^{}]*\}\}", "\n".join(lines)) and (
        re.search(r"\{%.*%\}", text) or "{{" in near
    ):
        return f"it holds Jinja (line {row + 1}): render it first"
    for minor, pattern in NEWER_SYNTAX.items():
        if sys.version_info < (3, minor) and re.search(pattern, near, re.MULTILINE):
            return (
                f"line {row + 1} is of a newer Python than this 3.{sys.version_info[1]}: "
                f"run this under the project's own, for example by `uvx --python "
                f"3.{max(NEWER_SYNTAX)} --from TEMPLATE chancy-workers wire`"
            )
    return f"line {row + 1}: {error.msg}: mend it and run this again"


# What the interpreters from 3.11 on have brought, by their minor version.
NEWER_SYNTAX = {
    11: r"^\s*except\s*\*",
    12: r"^\s*type\s+\w+.*=|^\s*(async\s+)?def\s+\w+\s*\[|^\s*class\s+\w+\s*\[|\b[rR]?[fF][rR]?[\"']",
    14: r"^\s*except\s+[\w.]+\s*,|\b[rR]?[tT][rR]?[\"']",
}


def module_of(node: ast.stmt) -> str:
    """The module that an import names, "" for any other statement."""
    if isinstance(node, ast.ImportFrom):
        return "." * node.level + (node.module or "")
    return node.names[0].name if isinstance(node, ast.Import) else ""


def full_name(node: ast.ImportFrom, alias: ast.alias) -> str:
    module = module_of(node)
    return f"{module}{'' if module.endswith('.') else '.'}{alias.name}"


def row_of(node: ast.AST) -> int:
    """The line of a node, counted from 1."""
    return int(getattr(node, "lineno", 1))


# --- the service and its workers --------------------------------------------------------


class Service(NamedTuple):
    """Whose workers are wired, into which file, and into which of its apps."""

    name: str
    folder: Path
    file: Path
    app: str

    def is_meant(self, origin: str) -> bool:
        """Whether a dotted name is one of this service's workers' two entries."""
        *path, name = origin.lstrip(".").split(".")
        if name not in (ENTERED.name, INCLUDED.name):
            return False
        workers = self.folder / "workers"
        places = (workers, workers / ENTERED.module, workers / INCLUDED.module)
        level = len(origin) - len(origin.lstrip("."))
        base = folder_above(self.file, max(level, 1))
        if level or path[:1] == ["workers"]:
            return base.joinpath(*path) in places
        return "workers" in path and any(
            place.parts[-len(path) :] == (*path,) for place in places
        )

    def uses(self, source: Source) -> list[ast.AST]:
        """Where a file uses them, in whatever words."""
        return [
            node
            for node in source.nodes
            if isinstance(node, (ast.Name, ast.Attribute))
            and isinstance(node.ctx, ast.Load)
            and self.is_meant(source.origin(node))
        ]

    def imported(self, source: Source, form: Form) -> str:
        """The name under which a file imports one of them, "" when it does not."""
        for node in source.tree.body:
            if isinstance(node, ast.ImportFrom):
                for each in node.names:
                    if each.name == form.name and self.is_meant(full_name(node, each)):
                        return each.asname or each.name
        return ""


def folder_above(file: Path, level: int) -> Path:
    """The folder that as many dots of a relative import mean."""
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
    """The module of the project that wires the workers, "" for none."""
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
    """The project's modules that a file imports, and those that they import.

    Only those that say something about lifespans or workers, and none of the template's.
    """
    found = []
    imports = [each for node in source.nodes for each in imports_of(node)]
    seen = {service.file}
    rest = [(service.file, imports)]
    while rest and len(seen) < MOST_MODULES:
        file, imports = rest.pop(0)
        paths = [path for each in imports for path in found_in(file, *each)[1]]
        for path in dict.fromkeys(paths):
            if path in seen or path.match("workers/chancy_*.py"):
                continue
            seen.add(path)
            try:
                data = path.read_bytes()
                rest.append((path, imports_in(data)))
                if re.search(rb"lifespan|initialize_workers|workers_router", data):
                    found.append((path, read(data)[0]))
            except (OSError, Stop):
                continue
    return found


def imports_in(data: bytes) -> list[tuple[str, list[str]]]:
    """What `imports_of` says of a module's lines; it needs no syntax tree."""
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
    """The modules that a statement imports, each with the names that it takes of it."""
    if isinstance(node, ast.ImportFrom):
        return [(module_of(node), [each.name for each in node.names])]
    if isinstance(node, ast.Import):
        return [(each.name, []) for each in node.names]
    return []


def found_in(file: Path, module: str, names: list[str]) -> tuple[Path, list[Path]]:
    """The root below which the project has a module, and the files that its import reads."""
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


# Folders are called like these, too, and their files are not what is imported.
LIBRARIES = {"fastapi", "starlette", "pydantic", "uvicorn", "chancy", *OTHERS}
MOST_LEVELS = 8


# --- find the app -----------------------------------------------------------------------


class App(NamedTuple):
    """A FastAPI app: its calls of the class, and the name that they are bound to."""

    target: str
    scope: ast.AST
    calls: list[ast.Call]
    bindings: list[ast.stmt]

    @property
    def label(self) -> str:
        inside = getattr(self.scope, "name", "")
        return f"{self.target or 'FastAPI(…)'}{f' (in {inside})' if inside else ''}"

    def is_called(self, name: str) -> bool:
        inside = getattr(self.scope, "name", "")
        return name in (self.target, inside, f"{inside}.{self.target}")


def find_app(source: Source, service: Service, apps: list[App]) -> App:
    """The app that the server runs.

    Raises:
        Stop: There is none, or no telling which.
    """
    if not apps:
        raise Stop(LEFT, no_app_problem(source))
    named = [app for app in apps if app.is_called(service.app)] if service.app else apps
    names = ", ".join(app.label for app in apps)
    if not named:
        raise Stop(LEFT, f"there is no app named {service.app} in it, but {names}")
    mounts = {app.label: mounted_on(source, app) for app in named}
    free = [app for app in named if not mounts[app.label]]
    if not free:
        app = named[0]
        raise Stop(
            LEFT,
            f"{app.label} is mounted on {mounts[app.label]}, and the lifespan of a "
            "mounted app never runs: wire the app that the server starts",
        )
    if len(free) > 1:
        raise Stop(
            LEFT,
            f"it makes several apps ({names}): name one, with --app or in the answer app",
        )
    return free[0]


def find_apps(source: Source, file: Path) -> list[App]:
    """All apps of a file, those in both branches of an `if` as one."""
    apps: list[App] = []
    found = [(call, *bound_to(source, call)) for call in find_calls(source, file)]
    named = [each for each in found if each[1] or isinstance(each[2], ast.Return)]
    for call, target, binding in named or found:
        scope = source.scope(binding)
        for app in apps:
            if target and (app.target, app.scope) == (target, scope):
                app.calls.append(call)
                app.bindings.append(binding)
                break
        else:
            apps.append(App(target, scope, [call], [binding]))
    return apps


def find_calls(source: Source, file: Path) -> list[ast.Call]:
    """The calls that make a FastAPI app, in their order."""
    classes = {*FASTAPI, *subclasses(source)}
    for name, origin in source.origins.items():
        if origin.endswith("FastAPI") and is_subclass(origin, file):
            classes.update((name, origin))
    calls = [
        node
        for node in source.nodes
        if isinstance(node, ast.Call) and source.origin(node.func) in classes
    ]
    return sorted(calls, key=lambda call: (call.lineno, call.col_offset))


FASTAPI = {
    "fastapi.FastAPI",
    "fastapi.applications.FastAPI",
    "fastapi_offline.FastAPIOffline",
    "fastapi_versioning.VersionedFastAPI",
}


def subclasses(source: Source) -> set[str]:
    """The classes of a file that stand on FastAPI."""
    found: set[str] = set()
    definitions = [node for node in source.nodes if isinstance(node, ast.ClassDef)]
    for _ in definitions:
        for each in definitions:
            if any(source.origin(base) in {*FASTAPI, *found} for base in each.bases):
                found.add(each.name)
    return found


def is_subclass(origin: str, file: Path) -> bool:
    """Whether a name that is imported from the project is such a class there."""
    module, _, name = origin.rpartition(".")
    for path in found_in(file, module, [])[1]:
        try:
            source, _ = read(path.read_bytes())
        except (OSError, Stop):
            continue
        return name in subclasses(source)
    return False


def bound_to(source: Source, call: ast.Call) -> tuple[str, ast.stmt]:
    """The name that a new app gets and the statement that gives it, ("", …) if none."""
    node: ast.expr = call
    while isinstance(parent := source.parents[node], (ast.IfExp, ast.BoolOp)):
        node = parent
    statement = source.statement(call)
    if isinstance(parent, ast.NamedExpr):
        return parent.target.id, statement
    targets: list[ast.expr] = []
    if isinstance(parent, ast.Assign):
        targets = parent.targets
    elif isinstance(parent, ast.Tuple) and isinstance(statement, ast.Assign):
        place = parent.elts.index(node)
        for each in statement.targets:
            if isinstance(each, ast.Tuple) and len(each.elts) == len(parent.elts):
                targets.append(each.elts[place])
    elif isinstance(parent, ast.AnnAssign):
        targets = [parent.target]
    for target in targets:
        if isinstance(target, (ast.Name, ast.Attribute)):
            return ast.unparse(target), statement
    if isinstance(statement, ast.Return) and statement.value is node:
        return returned_to(source, statement)
    return "", statement


def returned_to(source: Source, statement: ast.Return) -> tuple[str, ast.stmt]:
    """The name that the module gives to what a factory returns."""
    factory = source.scope(statement)
    for node in source.tree.body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Call)
            and source.origin(node.value.func) == getattr(factory, "name", None)
            and not isinstance(factory, ast.AsyncFunctionDef)
        ):
            return node.targets[0].id, node
    return "", statement


def mounted_on(source: Source, app: App) -> str:
    """What an app is mounted on, "" when it is not."""
    for node in source.nodes:
        if not (isinstance(node, ast.Call) and app.target):
            continue
        mounts = getattr(node.func, "attr", "") == "mount"
        if mounts or source.origin(node.func).endswith("Mount"):
            values = [*node.args, *(each.value for each in node.keywords)]
            if any(
                is_target(value, app) and is_same(source, value, app)
                for value in values
            ):
                return (
                    ast.unparse(node.func).rpartition(".")[0] if mounts else "another"
                )
    return ""


def is_target(node: ast.AST, app: App) -> bool:
    """Whether an expression is the app, by its name alone."""
    if isinstance(node, ast.Name):
        return node.id == app.target
    return (
        isinstance(node, ast.Attribute)
        and app.target.endswith(f".{node.attr}")
        and ast.unparse(node) == app.target
    )


def is_same(source: Source, node: ast.AST, app: App) -> bool:
    """Whether a name means the app where it stands, and no parameter, say."""
    scope = source.scope(node)
    while scope is not app.scope:
        if isinstance(scope, ast.Module) or bound_in(source, scope, app.target):
            return False
        scope = source.scope(scope)
    return True


def no_app_problem(source: Source) -> str:
    """Why a file without an app cannot be wired."""
    for node in source.nodes:
        if isinstance(node, ast.Call):
            first, _, _ = source.origin(node.func).partition(".")
            made = source.origin(node.func).rpartition(".")[2]
            if first in OTHERS and made in (*OTHERS.values(), *OTHER_APPS):
                return (
                    f"it is a {OTHERS[first]} app, not FastAPI, and these workers start "
                    "and stop with a FastAPI app"
                )
    if where := made_elsewhere(source):
        return f"its app is made in another file ({where}): name that file"
    return "no FastAPI app is made in it: name the file that makes it"


def made_elsewhere(source: Source) -> str:
    """The module from which a file gets its app, "" when it has none."""
    factory = re.compile(r"((create|make|build|get|init)_)?(\w+_)?(app|application)\Z")
    for name, origin in source.origins.items():
        module = origin.rpartition(".")[0]
        if factory.match(name) and module:
            return module
    for node in source.nodes:
        if isinstance(node, ast.Call) and (target := server_target(node)):
            return target.partition(":")[0]
    return ""


# --- find its lifespan ------------------------------------------------------------------


def find_lifespan(source: Source, app: App) -> ast.AsyncFunctionDef | None:
    """The function in this file that is the app's lifespan, if one surely is."""
    values = [
        next((each.value for each in call.keywords if each.arg == "lifespan"), None)
        for call in app.calls
    ]
    names = {value.id for value in values if isinstance(value, ast.Name)}
    if len(names) != 1 or not all(isinstance(value, ast.Name) for value in values):
        return None
    if any(is_replaced(node) for node in source.nodes):
        return None
    (name,) = names
    scope = source.scope(app.calls[0])
    while not (bindings := bound_in(source, scope, name)):
        if isinstance(scope, ast.Module):
            return None
        scope = source.scope(scope)
        if isinstance(scope, ast.ClassDef):
            scope = source.scope(scope)
    function = bindings[0]
    if len(bindings) > 1 or not isinstance(function, ast.AsyncFunctionDef):
        return None
    return function


def is_lifespan_of_others(
    source: Source, apps: list[App], app: App, lifespan: ast.AsyncFunctionDef | None
) -> bool:
    """Whether another app of the file, one that is not mounted, has the same lifespan."""
    return any(
        find_lifespan(source, other) is lifespan and not mounted_on(source, other)
        for other in apps
        if other.bindings != app.bindings
    )


def is_replaced(node: ast.AST) -> bool:
    """Whether a node puts another lifespan in the place of the app's."""
    if isinstance(node, ast.Attribute):
        return node.attr == "lifespan_context" and isinstance(node.ctx, ast.Store)
    return isinstance(node, ast.Constant) and node.value == "lifespan_context"


def bound_in(source: Source, scope: ast.AST, name: str) -> list[ast.AST]:
    """What binds a name in a scope: definitions, assignments, imports, parameters."""
    return [
        node
        for each, node in bound_names(source)
        if each == name and source.scope(node) is scope
    ]


def bound_names(source: Source) -> Iterator[tuple[str, ast.AST]]:
    """Every name that a file binds anywhere."""
    for node in source.nodes:
        if isinstance(node, (*Function, ast.ClassDef)):
            yield node.name, node
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id, node
        elif isinstance(node, ast.arg):
            yield node.arg, node
        elif isinstance(node, ast.alias):
            yield node.asname or node.name.partition(".")[0], node


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """A node and what is in it, without the bodies of functions and classes."""
    rest = [node]
    while rest:
        node = rest.pop()
        yield node
        if not isinstance(node, Scope):
            rest.extend(ast.iter_child_nodes(node))


def own_yields(function: ast.AsyncFunctionDef) -> list[ast.Yield]:
    """The yields of a function, without those of the functions inside it."""
    nodes = (node for each in function.body for node in own_nodes(each))
    return [node for node in nodes if isinstance(node, ast.Yield)]


# --- choose the edit --------------------------------------------------------------------


class Edit(NamedTuple):
    """What is put into a file: lines before rows, and rows that move to the right."""

    form: Form
    name: str
    insertions: list[tuple[int, list[str]]]
    moved: frozenset[int] = frozenset()
    unit: str = ""
    note: str = ""


def choose_edit(source: Source, service: Service) -> Edit:
    """Decides between the yield of the lifespan and the router, and where it goes.

    Raises:
        Stop: Neither is safe.
    """
    apps = find_apps(source, service.file)
    app = find_app(source, service, apps)
    lifespan = find_lifespan(source, app)
    is_shared = is_lifespan_of_others(source, apps, app, lifespan)
    modules = [source, *(module for _, module in project_modules(source, service))]
    is_all = not any(enters_later(module) for module in modules)
    if (
        lifespan
        and is_all
        and not is_shared
        and (statement := yield_to_wrap(source, lifespan))
    ):
        check_handlers(source, statement, lifespan)
        return wrap(source, service, statement)
    check_router(source, app, lifespan)
    note = check_version(service.file)
    return include(source, service, app)._replace(note=note)


def yield_to_wrap(source: Source, lifespan: ast.AsyncFunctionDef) -> ast.stmt | None:
    """The statement with the one yield, if what is put around it runs as it should."""
    yields = own_yields(lifespan)
    if len(yields) != 1:
        return None
    statement = source.statement(yields[0])
    if not (
        isinstance(statement, (ast.Expr, ast.Assign, ast.AnnAssign))
        and statement.value is yields[0]
        and source.has_its_lines(statement)
        # What it awaits is set up after the workers otherwise.
        and not any(isinstance(node, ast.Await) for node in own_nodes(statement))
    ):
        return None
    for child, parent in ancestors(source, statement, lifespan):
        if isinstance(parent, (ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler)):
            return None
        if is_try(parent) and child in getattr(parent, "orelse", ()):
            continue  # The handlers are not for what happens here.
        if is_try(parent) and child in getattr(parent, "finalbody", ()):
            return None
        if swallows(source, parent):
            return None
    return statement


def ancestors(
    source: Source, node: ast.AST, function: ast.AST
) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Each node and its parent, up to the function."""
    while node is not function:
        yield node, source.parents[node]
        node = source.parents[node]


def is_try(node: ast.AST) -> bool:
    return hasattr(node, "handlers")


def swallows(source: Source, node: ast.AST, what: str = "") -> bool:
    """Whether a `try` or a `with` keeps errors to itself: any, or all of a class."""
    if isinstance(node, (ast.With, ast.AsyncWith)):
        return any(keeps_errors(source, each.context_expr, what) for each in node.items)
    return any(
        (handler.type is None or catches(handler.type, what))
        and not isinstance(handler.body[-1], ast.Raise)
        for handler in getattr(node, "handlers", ())
    )


def keeps_errors(source: Source, manager: ast.expr, what: str) -> bool:
    """Whether a context manager is `suppress()`, or one of this file that is like it."""
    if not isinstance(manager, ast.Call):
        return False
    name = source.origin(manager.func)
    if name.endswith("suppress"):
        return any(catches(argument, what) for argument in manager.args)
    return ends_in_true(source, name)


def ends_in_true(source: Source, name: str) -> bool:
    """Whether a context manager of this file keeps every error to itself."""
    return any(
        isinstance(node, ast.Return)
        and isinstance(node.value, ast.Constant)
        and node.value.value is True
        for each in source.tree.body
        if isinstance(each, ast.ClassDef) and each.name == name
        for method in each.body
        if isinstance(method, Function) and method.name in ("__aexit__", "__exit__")
        for node in ast.walk(method)
    )


def catches(node: ast.expr, what: str) -> bool:
    """Whether a handler takes this class, or ("") any that a failed start may raise."""
    names = node.elts if isinstance(node, ast.Tuple) else [node]
    short = {ast.unparse(name).rpartition(".")[2] for name in names}
    return what in short if what else bool(short - OF_THE_STOP)


OF_THE_STOP = {"CancelledError", "KeyboardInterrupt", "GeneratorExit", "SystemExit"}


def enters_later(module: Source) -> bool:
    """Whether a module has lifespans that are entered after the app's, or replace it."""
    return any(
        is_replaced(node)
        or (
            isinstance(node, ast.Call)
            and module.origin(node.func).endswith("APIRouter")
            and any(each.arg == "lifespan" for each in node.keywords)
        )
        for node in module.nodes
    )


def check_router(
    source: Source, app: App, lifespan: ast.AsyncFunctionDef | None
) -> None:
    """Makes sure that a router can be included, and its start can fail.

    Raises:
        Stop: It cannot.
    """
    if not app.target:
        raise Stop(
            LEFT,
            f"its app has no name ({app.label} is handed on at once): bind it to one",
            by_hand=True,
        )
    for each in own_yields(lifespan) if lifespan else ():
        if is_no_mapping(each.value):
            raise Stop(
                LEFT,
                f"line {each.lineno} yields what is no mapping, which FastAPI cannot "
                "merge with a router's lifespan",
                by_hand=True,
            )
        check_handlers(source, each, source.scope(each))


def is_no_mapping(node: ast.expr | None) -> bool:
    if isinstance(node, ast.Constant):
        return node.value is not None
    return isinstance(node, (ast.Tuple, ast.List, ast.Set, ast.JoinedStr))


def check_version(file: Path) -> str:
    """Makes sure that FastAPI runs a router's lifespan; returns what is not known.

    Raises:
        Stop: It is too old.
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


def check_handlers(source: Source, node: ast.AST, lifespan: ast.AST) -> None:
    """Makes sure that a start that fails is not hidden by what is around the yield.

    Raises:
        Stop: It would be.
    """
    for child, parent in ancestors(source, node, lifespan):
        is_handled = child in getattr(parent, "body", ())
        if (is_handled and swallows(source, parent, "BaseException")) or ends_all(
            source, parent
        ):
            raise Stop(
                LEFT,
                f"its lifespan catches every exception around line {row_of(node)} and so "
                "would hide workers that cannot start: let it raise them",
                by_hand=True,
            )


def ends_all(source: Source, node: ast.AST) -> bool:
    """Whether a `finally` drops the exception that is under way."""
    return any(
        isinstance(each, ast.Return)
        or (isinstance(each, ast.Call) and source.origin(each.func) == "os._exit")
        for statement in getattr(node, "finalbody", ())
        for each in own_nodes(statement)
    )


def wrap(source: Source, service: Service, statement: ast.stmt) -> Edit:
    """Puts the yield inside `async with initialize_workers():`."""
    row, end = statement.lineno - 1, statement.end_lineno or statement.lineno
    indent = indent_of(source.lines[row])
    unit = unit_of(source, statement, indent)
    name, imports = import_edit(source, service, ENTERED, statement)
    text = source.lines[row:end]
    inside = strings_over_lines(text)
    return Edit(
        ENTERED,
        name,
        [*imports, (row, [indent + ENTER.format(name=name)])],
        frozenset(
            row + i for i in range(end - row) if i not in inside and text[i].strip()
        ),
        unit,
    )


def include(source: Source, service: Service, app: App) -> Edit:
    """Puts the router after everything that could undo it."""
    last = last_mention(source, service, app)
    row = last.end_lineno or last.lineno
    while row < len(source.lines) and re.match(r"[^#]*\\\Z", source.lines[row - 1]):
        row += 1
    indent = indent_of(source.lines[last.lineno - 1])
    name, imports = import_edit(source, service, INCLUDED, app.bindings[0])
    line = indent + INCLUDE.format(app=app.target, name=name)
    return Edit(INCLUDED, name, [*imports, (row, [line])])


def last_mention(source: Source, service: Service, app: App) -> ast.stmt:
    """The statement after which nothing can undo what the app includes.

    Raises:
        Stop: No line can be put after it.
    """
    known: dict[int, bool] = {}
    mentions = mentions_of(source, service, app)
    touching = [
        statement
        for statement in mentions
        if statement.lineno >= app.bindings[0].lineno
        and not is_in_last(source, app, statement, known)
    ]
    suite = common_suite([*map(source.suites, [*app.bindings, *touching])])
    touched = {id(within(source, suite, each)) for each in [*app.bindings, *touching]}
    rows = [i for i, each in enumerate(suite) if id(each) in touched]
    last = rows[0]
    for row in range(last, len(suite)):
        if id(suite[row]) not in touched and is_last(source, app, suite[row], known):
            break
        if id(suite[row]) in touched:
            last = row
    while last + 1 < len(suite) and suite[last + 1].lineno == suite[last].end_lineno:
        last += 1
        if is_last(source, app, suite[last], known):
            raise shares_line(app, suite[last])
    if not source.begins_its_line(suite[0]):
        raise shares_line(app, suite[last])
    while not source.begins_its_line(suite[last]):
        last -= 1
    return suite[last]


def is_in_last(
    source: Source, app: App, statement: ast.stmt, known: dict[int, bool]
) -> bool:
    """Whether a statement is, or stands in, what hands the app on or runs it."""
    around = {
        id(node) for each in app.bindings for node in statements_around(source, each)
    }
    return any(
        id(node) not in around and is_last(source, app, node, known)
        for node in statements_around(source, statement)
    )


def statements_around(source: Source, statement: ast.stmt) -> Iterator[ast.stmt]:
    """A statement and those of its scope that it stands in."""
    scope = source.scope(statement)
    node: ast.AST = statement
    while True:
        if isinstance(node, ast.stmt):
            yield node
        if source.parents[node] is scope:
            return
        node = source.parents[node]


def shares_line(app: App, statement: ast.stmt) -> Stop:
    text = f"{app.label} shares its line {statement.lineno} with other code"
    return Stop(LEFT, text, by_hand=True)


def within(source: Source, suite: list[ast.stmt], node: ast.AST) -> ast.AST:
    """The statement of a suite that a node is, or stands in."""
    while source.suite_of.get(id(node)) is not suite:
        node = source.parents[node]
    return node


def mentions_of(source: Source, service: Service, app: App) -> list[ast.stmt]:
    """The statements of the app's scope that touch it; decorators of routes do not."""
    touching = functions_that_touch(source, app)
    found = []
    for node in source.nodes:
        is_it = is_target(node, app) or (
            isinstance(node, ast.Call) and called(node) in touching
        )
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            # A module that is imported late may be one that takes the app.
            is_it = any(found_in(service.file, *each)[1] for each in imports_of(node))
        if is_it and source.scope(node) is app.scope:
            statement = source.statement(node)
            if not isinstance(statement, (*Function, ast.ClassDef)):
                found.append(statement)
    return found


def functions_that_touch(source: Source, app: App) -> set[str]:
    """The functions of a file that name the app, or call one that does."""
    touching: set[str] = set()
    calls: dict[str, set[str]] = {}
    for node in source.nodes:
        name = getattr(source.scope(node), "name", "") if node in source.parents else ""
        if is_target(node, app) and source.scope(node) is not app.scope:
            touching.add(name)
        elif isinstance(node, ast.Call):
            calls.setdefault(name, set()).add(called(node))
    while more := {
        name
        for name, names in calls.items()
        if names & touching and name not in touching
    }:
        touching |= more
    return touching - {"", getattr(app.scope, "name", "")}


def called(node: ast.Call) -> str:
    """The name of a function or method that is called, "" when it has none."""
    return getattr(node.func, "id", "") or getattr(node.func, "attr", "")


def is_last(
    source: Source, app: App, statement: ast.stmt, known: dict[int, bool]
) -> bool:
    """Whether a statement hands the app on, runs it or rebinds its name."""
    if id(statement) not in known:
        known[id(statement)] = is_guard(statement) or any(
            is_end(source, app, statement, node) for node in own_nodes(statement)
        )
    return known[id(statement)]


def is_end(source: Source, app: App, statement: ast.stmt, node: ast.AST) -> bool:
    if isinstance(node, (ast.Return, ast.Raise, ast.Yield)):
        return node is statement or mentions(node, app)
    if is_target(node, app):
        return not (
            isinstance(getattr(node, "ctx", None), ast.Load)
            or isinstance(source.parents[node], ast.comprehension)
            or is_app_afterwards(source, app, statement)
        )
    if isinstance(node, ast.alias):
        return (node.asname or node.name.partition(".")[0]) == app.target
    return isinstance(node, ast.Call) and runs_app(source, app, node)


def is_app_afterwards(source: Source, app: App, statement: ast.stmt) -> bool:
    """Whether the name is used as only a FastAPI app can be, below a statement."""
    return any(
        isinstance(node, ast.Attribute)
        and node.attr in OF_FASTAPI
        and is_target(node.value, app)
        and node.lineno > (statement.end_lineno or 0)
        for node in source.nodes
    )


OF_FASTAPI = {
    *("get", "post", "put", "patch", "delete", "websocket", "api_route", "on_event"),
    *("include_router", "add_middleware", "middleware", "exception_handler", "state"),
    *("add_event_handler", "dependency_overrides", "add_api_route", "router", "mount"),
}


def is_guard(node: ast.AST) -> bool:
    """Whether a node is `if __name__ == "__main__":`."""
    return isinstance(node, ast.If) and any(
        isinstance(each, ast.Name) and each.id == "__name__"
        for each in ast.walk(node.test)
    )


RUNNERS = {"run", "serve", "run_app", "run_forever", "run_until_complete"}


def runs_app(source: Source, app: App, call: ast.Call) -> bool:
    """Whether a call serves the app, and does not return before the service ends."""
    if runs_a_server(source, call):
        return mentions(call, app) or bool(server_target(call))
    return any(
        isinstance(node, ast.Call) and runs_a_server(source, node)
        for each in source.tree.body
        if isinstance(each, Function) and each.name == called(call)
        if mentions(each, app)
        for node in ast.walk(each)
    )


def runs_a_server(source: Source, call: ast.Call) -> bool:
    name = source.origin(call.func) or called(call)
    return name.rpartition(".")[2] in RUNNERS and not name.startswith("subprocess")


def server_target(call: ast.Call) -> str:
    """The "package.module:app" that a call names, "" when it names none."""
    for each in [*call.args, *(keyword.value for keyword in call.keywords)]:
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            if re.fullmatch(r"[\w.]+:[\w.()]+", each.value):
                return each.value
    return ""


def mentions(node: ast.AST, app: App) -> bool:
    return any(is_target(each, app) for each in ast.walk(node))


def common_suite(chains: Sequence[Sequence[list[ast.stmt]]]) -> list[ast.stmt]:
    """The innermost suite that is in every chain."""
    return next(
        suite
        for suite in reversed(chains[0])
        if all(any(suite is each for each in chain) for chain in chains)
    )


def indent_of(line: str) -> str:
    """The white space before a line's text; a form feed starts it anew."""
    return line[: len(line) - len(line.lstrip(" \t\f"))].rpartition("\f")[2]


def unit_of(source: Source, statement: ast.stmt, indent: str) -> str:
    """One level of indentation, as it is around a statement."""
    parent = source.parents[statement]
    while not hasattr(parent, "lineno"):
        parent = source.parents[parent]
    outer = indent_of(source.lines[parent.lineno - 1])
    if indent.startswith(outer) and indent != outer:
        return indent[len(outer) :]
    return "\t" if "\t" in indent else "    "


def strings_over_lines(lines: list[str]) -> set[int]:
    """The lines that begin inside a string, where white space is part of the value."""
    found: set[int] = set()
    starts: list[int] = []
    text = "\n".join([lines[0].lstrip(" \t\f"), *lines[1:]]) + "\n"
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        kind = tokenize.tok_name[token.type]
        if kind == "STRING":
            found.update(range(token.start[0], token.end[0]))
        elif kind.endswith("STRING_START"):
            starts.append(token.start[0])
        elif kind.endswith("STRING_END"):
            found.update(range(starts.pop(), token.end[0]))
    return found


# --- the import -------------------------------------------------------------------------


def import_edit(
    source: Source, service: Service, form: Form, use: ast.stmt
) -> tuple[str, list[tuple[int, list[str]]]]:
    """The name to use, and the import that has to be put before a row, if any."""
    if name := service.imported(source, form):
        return name, []
    module = f"{package_for(source, service)}.{form.module}"
    taken = {name for name, _ in bound_names(source)}
    imported = {module_of(each) for each in top_imports(source)}
    others = any(origin.endswith(f".{form.name}") for origin in source.origins.values())
    name = form.name
    if name in taken or module in imported or others:
        name = form.alias.format(re.sub(r"[^0-9A-Za-z_]", "_", service.name))
        if name in taken:
            raise Stop(
                LEFT,
                f"the name {form.name} is taken in it, and so is {name}: rename one",
                by_hand=True,
            )
    row, before, after = import_place(source, service, module, use)
    text = import_lines(module, form, name, line_length(service.file))
    return name, [(row, [*before, *text, *after])]


def import_lines(module: str, form: Form, name: str, length: int) -> list[str]:
    template = IMPORT if name == form.name else IMPORT_AS
    line = template.format(module=module, name=form.name, alias=name)
    if len(line) <= length:
        return [line]
    item = line.partition(" import ")[2]
    return [OPENED.format(module=module), f"    {item},", CLOSED]


def package_for(source: Source, service: Service) -> str:
    """How this file imports the service's `workers`: as it imports its neighbours."""
    here, folder = service.file.parent, service.folder
    best = most_common_root(source, service) or root_of_server(source, service)
    if best != "." and Path(best) in (folder, *folder.parents):
        return ".".join([*folder.relative_to(best).parts, "workers"])
    up = os.path.relpath(folder, here).split(os.sep)
    dots = "." * (1 + up.count(".."))
    return dots + ".".join(
        [*(part for part in up if part not in ("..", ".")), "workers"]
    )


def most_common_root(source: Source, service: Service) -> str:
    """The folder from which a file imports its own project, "." for relative imports.

    Modules beside the file count only where no other import is of the project: a folder
    there may be called like a library. "" when the file imports nothing of its own.
    """
    here = service.file.parent
    imports = [each for node in source.nodes for each in imports_of(node)]
    roots = ["." for module, _ in imports if module.startswith(".")]
    for module, names in imports:
        root, files = found_in(service.file, module, names)
        if files and not module.startswith("."):
            roots.append(str(root))
    if not roots:
        for module, _ in imports:
            first = module.partition(".")[0]
            for parent in roots_of(service.file, module):
                if parent / first in (here, *here.parents):
                    roots.append(str(parent))
    above = [root for root in roots if root != str(here)]
    return max(above or roots, key=(above or roots).count, default="")


OF_A_ROOT = (
    *(".git", "pyproject.toml", "setup.py", "requirements.txt", "Pipfile", "uv.lock"),
    *("Dockerfile", "Procfile", "environment.yml", "docker-compose.yml"),
)


def root_of_server(source: Source, service: Service) -> str:
    """Where a file without imports of its own is run from; "." where it does not show."""
    here = service.file.parent
    for node in source.nodes:
        if isinstance(node, ast.Call) and (target := server_target(node)):
            parts = target.partition(":")[0].split(".")
            if parts[-1] == service.file.stem:
                root = here
                for part in reversed(parts[:-1]):
                    if root.name != part:
                        break
                    root = root.parent
                else:
                    return str(root)
    is_root = any((here / name).exists() for name in OF_A_ROOT)
    is_package = any((each / "__init__.py").exists() for each in (here, here.parent))
    is_script = any(is_guard(node) for node in source.tree.body)
    return str(here) if is_root or (is_script and not is_package) else "."


def top_imports(source: Source) -> list[ast.stmt]:
    """The imports of the module itself that have their lines to themselves."""
    return [
        node
        for node in source.tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom)) and source.has_its_lines(node)
    ]


def import_place(
    source: Source, service: Service, module: str, use: ast.stmt
) -> tuple[int, list[str], list[str]]:
    """The row before which the import goes, and the blank lines before and after it."""
    imports = [
        each
        for each in top_imports(source)
        if each.lineno < top_level(source, use).lineno
        and module_of(each) != "__future__"
    ]
    if not imports:
        row = first_row(source)
        return row, [""] if row else [], [] if row else [""]
    alike = [each for each in imports if is_alike(each, module, service)]
    runs = runs_of(source, imports)
    if alike:
        counts = [len([each for each in run if each in alike]) for run in runs]
        run = max(reversed(list(zip(counts, runs, strict=True))), key=lambda it: it[0])[
            1
        ]
        alike = [each for each in alike if each in run]
        keys = [sort_key(each) for each in alike]
        later = [each for each in alike if sort_key(each) > from_key(module)]
        if later and keys == sorted(keys):
            return row_before(source, later[0]), [], []
        return alike[-1].end_lineno or 0, [], []
    run = run_with_fastapi(runs)
    if settings := last_settings(source, run, use):
        return settings.end_lineno or 0, [""], []
    local = [each for each in run if module_of(each).startswith(".")]
    if local and not module.startswith("."):
        return row_before(source, local[0]), [], [""]
    return run[-1].end_lineno or 0, [""], []


def last_settings(
    source: Source, run: list[ast.stmt], use: ast.stmt
) -> ast.stmt | None:
    """The last statement between imports and app that jobs may need when imported."""
    for each in reversed(source.tree.body):
        if run[-1].lineno < each.lineno < top_level(source, use).lineno and (
            isinstance(each, ast.Expr)
            and source.has_its_lines(each)
            and re.match(
                r"(\w+\.)*load_dotenv|os\.environ|(\w+\.)*patch_all|sys\.path",
                ast.unparse(each),
            )
        ):
            return each
    return None


def top_level(source: Source, node: ast.AST) -> ast.stmt:
    """The statement of the module that holds a node."""
    while source.parents[node] is not source.tree:
        node = source.parents[node]
    assert isinstance(node, ast.stmt)
    return node


def is_alike(node: ast.stmt, module: str, service: Service) -> bool:
    """Whether an import belongs where an import of the module belongs."""
    name = module_of(node)
    if module.startswith("."):
        return name.startswith(".")
    first, own = name.partition(".")[0], module.partition(".")[0]
    if own != "workers":
        return first == own
    return any(
        found_in(service.file, *each)[0] == service.file.parent
        for each in imports_of(node)
    )


def runs_of(source: Source, imports: list[ast.stmt]) -> list[list[ast.stmt]]:
    """The imports in groups that no other statement of the module separates."""
    ids = {id(each) for each in imports}
    runs: list[list[ast.stmt]] = [[]]
    for statement in source.tree.body:
        if id(statement) in ids:
            runs[-1].append(statement)
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def run_with_fastapi(runs: list[list[ast.stmt]]) -> list[ast.stmt]:
    for run in runs:
        if any("fastapi" in ast.unparse(each) for each in run):
            return run
    return runs[-1]


def row_before(source: Source, statement: ast.stmt) -> int:
    """The row of a statement, or of the comment right above it."""
    row = statement.lineno - 1
    while row and source.lines[row - 1].lstrip().startswith("#"):
        row -= 1
    while row < 2 and re.match(r"#!|#.*coding[:=]", source.lines[row]):
        row += 1
    return row


def first_row(source: Source) -> int:
    """Where the first import of a module goes that has none."""
    body = source.tree.body
    row = 0
    for each in body:
        is_docstring = isinstance(each, ast.Expr) and isinstance(
            each.value, ast.Constant
        )
        if not is_docstring and module_of(each) != "__future__":
            break
        row = each.end_lineno or 0
    while not row and row < len(source.lines) and source.lines[row].startswith("#"):
        row += 1
    return row


def sort_key(node: ast.stmt) -> tuple[object, ...]:
    if isinstance(node, ast.Import):
        return (0, 0, natural(module_of(node)))
    return from_key(module_of(node))


def from_key(module: str) -> tuple[object, ...]:
    """The order of imports as ruff and isort have it: farther first, numbers by size."""
    name = module.lstrip(".")
    return (1, len(name) - len(module), natural(name))


def natural(text: str) -> list[tuple[int, int]]:
    return [
        (ord("0"), int(part)) if part.isdigit() else (ord(part), 0)
        for part in re.findall(r"\d+|\D", text.lower())
    ]


def line_length(file: Path) -> int:
    """How long lines may be, from the project's configuration of ruff or black."""
    for folder in file.parents:
        for name in ("ruff.toml", ".ruff.toml", "pyproject.toml"):
            try:
                text = (folder / name).read_text(encoding="utf-8")
            except (OSError, ValueError):
                continue
            if found := re.search(r"(?m)^line[-_]length\s*=\s*(\d+)", text):
                return int(found[1])
        if (folder / ".git").exists():
            break
    return 88


def fastapi_version(file: Path) -> tuple[tuple[int, ...], str]:
    """The FastAPI of a project and the file that tells it, ((), "") when none does."""
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
                # A lower bound that is too low tells nothing; the others have an upper one.
                if version >= OLDEST_FASTAPI or operator != ">=":
                    return version, name
    return (), ""


def versions_in(
    folder: Path, name: str, pattern: str
) -> Iterator[tuple[tuple[int, ...], str]]:
    """The versions that files tell, each with the operator in front of it."""
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


# --- make it ----------------------------------------------------------------------------


def make(source: Source, edit: Edit) -> Source:
    """The file with the edit in it."""
    lines = [
        move(line, edit.unit) if row in edit.moved else line
        for row, line in enumerate(source.lines)
    ]
    ends = list(source.ends)
    usual = max(("\n", "\r\n", "\r"), key=ends.count)
    for row, new in sorted(edit.insertions, key=lambda item: item[0], reverse=True):
        end = ends[row - 1] if row else (ends or [usual])[0] or usual
        if not end:
            ends[row - 1], new_ends = usual, [usual] * (len(new) - 1) + [""]
        else:
            new_ends = [end] * len(new)
        lines[row:row] = new
        ends[row:row] = new_ends
    return Source(lines, ends)


def move(line: str, unit: str) -> str:
    """A line one level to the right."""
    text = line.lstrip(" \t\f")
    return line[: len(line) - len(text)] + unit + text


def take_out(source: Source, service: Service) -> Source:
    """The file without its wiring, which gives the original when nothing else changed.

    Raises:
        Stop: There is none, or it was written by hand in other words.
    """
    uses = service.uses(source)
    if not uses:
        raise Stop(NOTHING, f"{service.file.name} is not wired: nothing to take out")
    drop: set[int] = set()
    left: dict[int, str] = {}
    for use in uses:
        statement = source.statement(use)
        if is_include(use, source) and is_ours(source, statement):
            drop.update(rows_of(statement))
        elif is_enter(use, source) and can_unwrap(source, statement):
            assert isinstance(statement, ast.AsyncWith)
            drop.add(statement.lineno - 1)
            left.update(moved_back(source, statement))
        else:
            raise by_hand(statement)
    imports = [
        node
        for node in source.nodes
        if isinstance(node, ast.stmt) and service_import(node, service)
    ]
    for node in imports:
        if node not in top_imports(source) or not is_ours(source, node):
            raise by_hand(node)
        drop.update(rows_of(node))
    return original(source, service, drop, left, imports)


def is_ours(source: Source, statement: ast.stmt) -> bool:
    """Whether a statement is as this program writes it, with nothing of the team's."""
    rows = "".join(source.lines[row] for row in rows_of(statement))
    return (
        source.has_its_lines(statement)
        and "#" not in rows
        and len(source.suite_of[id(statement)]) > 1
        and len(getattr(statement, "names", [statement])) == 1
    )


def by_hand(statement: ast.stmt) -> Stop:
    return Stop(
        LEFT,
        f"line {statement.lineno} uses the workers in words of its own: take them out "
        "by hand",
    )


def original(
    source: Source,
    service: Service,
    drop: set[int],
    left: dict[int, str],
    imports: list[ast.stmt],
) -> Source:
    """Of the ways to take the wiring out, the one that wiring again turns back."""
    blank = {
        row
        for node in imports
        for row in (node.lineno - 2, node.end_lineno or 0)
        if 0 <= row < len(source.lines) and not source.lines[row].strip()
    }
    choices = [set(), *({row} for row in sorted(blank)), blank]
    results = []
    expected = without_wiring(source, service)
    for end in ("", None):
        for rows in choices:
            result = without(source, drop | rows, left, end)
            if result and outline(result.tree) == expected:
                results.append(result)
                if rewired(result, service) == source.text:
                    return result
    if not results:
        raise NotProven("what is left without the wiring differs from the file before")
    return results[0]


def without(
    source: Source, drop: set[int], left: dict[int, str], end: str | None
) -> Source | None:
    """The file without some rows; `end` is the last line's, None for its own."""
    kept = [row for row in range(len(source.lines)) if row not in drop]
    lines = [left.get(row, source.lines[row]) for row in kept]
    ends = [source.ends[row] for row in kept]
    if ends and source.ends[-1] == "":
        ends[-1] = ends[-1] if end is None else end
    try:
        return Source(lines, ends)
    except SyntaxError:
        return None


def rewired(source: Source, service: Service) -> str:
    try:
        return make(source, choose_edit(source, service)).text
    except Stop:
        return ""


def rows_of(node: ast.stmt) -> range:
    return range(node.lineno - 1, node.end_lineno or node.lineno)


def is_include(use: ast.AST, source: Source) -> bool:
    call = source.parents[use]
    return (
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "include_router"
        and (call.args, call.keywords) == ([use], [])
        and isinstance(source.parents[call], ast.Expr)
    )


def is_enter(use: ast.AST, source: Source) -> bool:
    call = source.parents[use]
    item = source.parents[call]
    block = source.parents.get(item)
    return (
        isinstance(call, ast.Call)
        and call.func is use
        and not (call.args or call.keywords)
        and isinstance(item, ast.withitem)
        and item.optional_vars is None
        and isinstance(block, ast.AsyncWith)
        and len(block.items) == 1
    )


def can_unwrap(source: Source, block: ast.stmt) -> bool:
    """Whether the block's head is a line without a comment, and its body starts a line."""
    assert isinstance(block, ast.AsyncWith)
    head = source.lines[block.lineno - 1].rstrip()
    return (
        source.begins_its_line(block)
        and block.body[0].lineno == block.lineno + 1
        and source.begins_its_line(block.body[0])
        and head.endswith(":")
        and "#" not in head
    )


def moved_back(source: Source, block: ast.AsyncWith) -> Iterator[tuple[int, str]]:
    """The rows of a block's body, one level to the left."""
    outer = indent_of(source.lines[block.lineno - 1])
    inner = indent_of(source.lines[block.body[0].lineno - 1])
    unit = inner[len(outer) :]
    first, end = block.lineno, block.end_lineno or block.lineno
    lines = source.lines[first:end]
    inside = strings_over_lines(["if 1:", *lines])
    for i, line in enumerate(lines):
        text = line.lstrip(" \t\f")
        space = line[: len(line) - len(text)]
        if i + 1 not in inside and space.endswith(unit):
            yield first + i, space[: len(space) - len(unit)] + text


# --- prove it ---------------------------------------------------------------------------


def prove(old: Source, new: Source, edit: Edit, service: Service) -> None:
    """Makes sure that nothing but the wiring is new.

    Raises:
        NotProven: Something else is.
    """
    if without_wiring(new, service) != without_wiring(old, service):
        raise NotProven("the rest of the syntax tree is another")
    if not service.uses(new):
        raise NotProven("the wiring is not found again")
    rows = iter(zip(new.lines, new.ends, strict=True))
    for row, (line, end) in enumerate(zip(old.lines, old.ends, strict=True)):
        expected = move(line, edit.unit) if row in edit.moved else line
        if not any(text == expected and end in (each, "") for text, each in rows):
            raise NotProven(f"line {row + 1} is not there any more")


def without_wiring(source: Source, service: Service) -> list[object]:
    """The outline of the syntax tree with this service's wiring taken out."""
    if not re.search(f"{ENTERED.name}|{INCLUDED.name}", source.text):
        return outline(source.tree)
    source = Source(source.lines, source.ends)  # Its tree is taken to pieces.
    left: dict[int, list[ast.stmt]] = {}
    for use in service.uses(source):
        statement = source.statement(use)
        if is_include(use, source):
            left[id(statement)] = []
        elif is_enter(use, source):
            left[id(statement)] = getattr(statement, "body", [])
    for node in source.nodes:
        if isinstance(node, ast.stmt) and service_import(node, service):
            left[id(node)] = []
    for node in source.nodes:
        for _, suite in ast.iter_fields(node):
            if isinstance(suite, list):
                suite[:] = [
                    kept for each in suite for kept in left.get(id(each), [each])
                ]
    return outline(source.tree)


def outline(tree: ast.Module) -> list[object]:
    """What `ast.dump` says, as a list: deep trees would exceed its recursion."""
    found: list[object] = []
    for node in ast.walk(tree):
        found.append(type(node))
        for name, value in ast.iter_fields(node):
            if isinstance(value, list):
                found.append(
                    (
                        name,
                        len(value),
                        *(each for each in value if not isinstance(each, ast.AST)),
                    )
                )
            else:
                found.append(
                    (name, type(value) if isinstance(value, ast.AST) else repr(value))
                )
    return found


def service_import(node: ast.stmt, service: Service) -> bool:
    """Whether a statement imports what is the service's own to use."""
    return isinstance(node, ast.ImportFrom) and any(
        service.is_meant(full_name(node, each)) for each in node.names
    )


# --- write it ---------------------------------------------------------------------------


def check_file(service: Service, path: Path) -> None:
    """Makes sure that the file is one that may be written.

    Raises:
        Stop: It is not.
    """
    if not path.exists():
        link = " but a link to nothing" if path.is_symlink() else ""
        raise Stop(NOTHING, f"there is no {path}{link}: nothing to wire")
    if path.is_dir():
        raise Stop(LEFT, "it is a directory: name the file with the FastAPI app")
    if not path.is_file():
        raise Stop(LEFT, "it is no regular file")
    real = Path(os.path.realpath(path))
    if not real.stat().st_mode & 0o222 or not os.access(real, os.W_OK):
        raise Stop(LEFT, f"it is read-only: allow to write it (chmod u+w {path})")
    root = repository_of(real.parent)
    if root and (root / ".git").is_file() and root != repository_of(service.folder):
        pointer = (root / ".git").read_text(encoding="utf-8", errors="replace")
        if "modules/" in pointer:
            raise Stop(LEFT, f"it is in the submodule {root.name}: wire it there")


def repository_of(folder: Path) -> Path | None:
    for each in (folder, *folder.parents):
        if (each / ".git").exists():
            return each
    return None


def check_workers(service: Service, result: Result) -> None:
    """Makes sure that what the wired file imports is there.

    Raises:
        Stop: It is not.
    """
    module = service.folder / "workers" / f"{result.module}.py"
    if result.module and not module.is_file():
        raise Stop(
            LEFT,
            f"there is no {module} yet, which it would import: render the workers first "
            "(copier copy, or copier update of an older release), or name the service's "
            "folder with --package",
        )


def write(path: Path, old: bytes, new: bytes) -> None:
    """Replaces a file's content at once; mode, owner and symbolic links to it stay.

    Raises:
        Stop: The file is not what it was, or has more names or another owner.
        OSError: The folder does not take a new file.
    """
    real = os.path.realpath(path)
    status = os.stat(real)
    if status.st_nlink > 1:
        raise Stop(LEFT, f"it is {status.st_nlink} hard links, which would be parted")
    temporary = f"{real}.{os.getpid()}.tmp"
    with open(temporary, "xb") as file:
        try:
            file.write(new)
            file.flush()
            os.fsync(file.fileno())
            keep_status(real, temporary, status)
            with open(real, "rb") as current:
                if current.read() != old:
                    raise Stop(LEFT, "it was changed meanwhile: run this again")
            os.replace(temporary, real)
        except BaseException:
            os.unlink(temporary)
            raise


def keep_status(real: str, temporary: str, status: os.stat_result) -> None:
    """Gives a new file the owner, the attributes and the mode of the old one."""
    owner, new = (status.st_uid, status.st_gid), os.stat(temporary)
    if owner != (new.st_uid, new.st_gid):
        try:
            os.chown(temporary, *owner)
        except PermissionError:
            raise Stop(
                LEFT, "it belongs to another user: run this as that one"
            ) from None
    for name in os.listxattr(real) if hasattr(os, "listxattr") else ():
        if not name.startswith("security."):
            os.setxattr(temporary, name, os.getxattr(real, name))
    os.chmod(temporary, status.st_mode)


# --- the program ------------------------------------------------------------------------


class Result(NamedTuple):
    """What a run comes to: an outcome, what is said, and the file afterwards."""

    outcome: str
    text: str
    data: bytes
    module: str = ""


def plan(data: bytes, service: Service, *, remove: bool = False) -> Result:
    """Decides what becomes of a file; writes nothing."""
    source, name = None, service.file.name
    try:
        source, encoding = read(data)
        if remove:
            new = take_out(source, service)
            text, module = f"{name} is without the workers of {service.name} again.", ""
        else:
            new, text, module = wire(source, service)
        return Result(WIRED, text, new.text.encode(encoding), module)
    except Stop as stop:
        text = str(stop)
        if stop.outcome == LEFT:
            text = f"{name} is left as it is: {text}."
        if stop.by_hand:
            text += f"\n{lines_by_hand(source, service)}"
        return Result(stop.outcome, text, data)
    except (NotProven, SyntaxError, RecursionError) as error:
        text = BUG.format(file=name, reason=error)
        return Result(LEFT, f"{text}\n{lines_by_hand(source, service)}", data)


def wire(source: Source, service: Service) -> tuple[Source, str, str]:
    """Returns the wired file, what is said about it, and the module that it imports.

    Raises:
        Stop: It is wired already, or cannot be.
        NotProven: The edit would change more than it should.
    """
    name = service.file.name
    if uses := service.uses(source):
        raise Stop(ALREADY, f"{name} is wired already (line {row_of(uses[0])}).")
    if where := wired_elsewhere(source, service):
        raise Stop(ALREADY, f"{name} is wired already ({where}).")
    check_names(source, service)
    edit = choose_edit(source, service)
    new = make(source, edit)
    prove(source, new, edit, service)
    row = row_of(service.uses(new)[0])
    how = (
        f"the yield of its lifespan is inside {edit.name}()"
        if edit.form is ENTERED
        else f"its app includes {edit.name}, which starts last and stops first"
    )
    text = f"{name} is wired: {how} (line {row}).{edit.note}"
    return new, text, edit.form.module


def check_names(source: Source, service: Service) -> None:
    """Makes sure that the file does not use the workers without importing them.

    Raises:
        Stop: It does, and does not run.
    """
    bound = {name for name, _ in bound_names(source)} | {*source.origins}
    for node in source.nodes:
        for form in (ENTERED, INCLUDED):
            if isinstance(node, ast.Name) and node.id == form.name not in bound:
                module = f"{package_for(source, service)}.{form.module}"
                raise Stop(
                    LEFT,
                    f"line {node.lineno} uses {form.name}, which nothing in it binds: "
                    f"add {IMPORT.format(module=module, name=form.name)}",
                )


def lines_by_hand(source: Source | None, service: Service) -> str:
    package = package_for(source, service) if source else ".workers"
    modules = {form: f"{package}.{form.module}" for form in (ENTERED, INCLUDED)}
    return BY_HAND.format(
        enter=ENTER.format(name=ENTERED.name),
        import_entered=IMPORT.format(module=modules[ENTERED], name=ENTERED.name),
        include=INCLUDE.format(app="app", name=INCLUDED.name),
        import_included=IMPORT.format(module=modules[INCLUDED], name=INCLUDED.name),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Wires one file; returns the exit status."""
    options = parse(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if not options.task:
        return run(options)
    try:
        run(options)
    except Exception as error:  # A task that fails leaves Copier's update half applied.
        print(BUG.format(file=options.file, reason=repr(error)), file=sys.stderr)
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="the file with the FastAPI app")
    parser.add_argument("--service", required=True, help="whose workers are wired")
    parser.add_argument("--package", default="", help="import path of its folder")
    parser.add_argument("--app", default="", help="the app, where there are several")
    does = parser.add_mutually_exclusive_group()
    does.add_argument(
        "--diff", action="store_true", help="show the edit, write nothing"
    )
    does.add_argument("--check", action="store_true", help="exit with 1 if not wired")
    does.add_argument("--remove", action="store_true", help="take the wiring out again")
    parser.add_argument("--task", choices=["copy", "update"], help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    """Does what the person asked for and says what came of it."""
    service = service_of(options.file, options.service, options.package, options.app)
    try:
        check_file(service, options.file)
        data = options.file.read_bytes()
        result = plan(data, service, remove=options.remove)
        if result.outcome == WIRED and options.diff:
            show_diff(options.file, data, result.data)
        elif result.outcome == WIRED and not options.check:
            check_workers(service, result)
            write(options.file, data, result.data)
    except Stop as stop:
        text = str(stop)
        if stop.outcome == LEFT:
            text = f"{options.file} is left as it is: {text}."
        result = Result(stop.outcome, text, b"")
    except OSError as error:
        text = f"{options.file} is left as it is: it cannot be read or written: {error}"
        result = Result(LEFT, text, b"")
    if options.check:
        return report_check(options.file, result)
    nothing_new = options.task == "update" and result.outcome == ALREADY
    if not (nothing_new or options.diff and result.outcome == WIRED):
        print(result.text)
    return STATUS[result.outcome]


def report_check(file: Path, result: Result) -> int:
    if result.outcome == ALREADY:
        print(result.text)
        return 0
    print(f"{file} is not wired." if result.outcome == WIRED else result.text)
    return 1


def show_diff(file: Path, before: bytes, after: bytes) -> None:
    """Prints a unified diff; line ends are not shown."""
    import difflib  # Here, because a wiring needs none.

    old, new = (
        re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", data.decode("utf-8", "replace"))
        for data in (before, after)
    )
    for line in difflib.unified_diff(old, new, f"a/{file}", f"b/{file}"):
        text = line.rstrip("\r\n")
        print(text if text != line else f"{text}\n\\ No newline at end of file")


if __name__ == "__main__":
    sys.exit(main())
