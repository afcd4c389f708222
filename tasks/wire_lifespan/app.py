"""Finds the FastAPI app in a file."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

from .service import Service, found_in
from .source import Source, bound_in, read, server_target
from .texts import LEFT, OTHER_APPS, OTHERS, Stop


class App(NamedTuple):
    """A FastAPI app: the calls that make it, and the name to which they are bound."""

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
        Stop: There is no app, or several and it is unknown which one the server runs.
    """
    if not apps:
        raise Stop(LEFT, no_app_problem(source))
    named = [app for app in apps if app.is_called(service.app)] if service.app else apps
    names = ", ".join(app.label for app in apps)
    if not named:
        raise Stop(LEFT, f"it has no app named {service.app}, only {names}")
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
    """All apps of a file; an app in both branches of an `if` counts once."""
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
    """The calls that make a FastAPI app, in source order."""
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
    """The classes of a file that inherit from FastAPI."""
    found: set[str] = set()
    definitions = [node for node in source.nodes if isinstance(node, ast.ClassDef)]
    for _ in definitions:
        for each in definitions:
            if any(source.origin(base) in {*FASTAPI, *found} for base in each.bases):
                found.add(each.name)
    return found


def is_subclass(origin: str, file: Path) -> bool:
    """Whether a name that is imported from the project is such a class."""
    module, _, name = origin.rpartition(".")
    for path in found_in(file, module, [])[1]:
        try:
            source, _ = read(path.read_bytes())
        except (OSError, Stop):
            continue
        return name in subclasses(source)
    return False


def bound_to(source: Source, call: ast.Call) -> tuple[str, ast.stmt]:
    """The name to which a new app is bound, "" for none, and the statement that binds it."""
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
    """The module's name for the app that a factory returns."""
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
    """The app on which an app is mounted, "" if it is not mounted."""
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
    """Whether an expression has the name of the app."""
    if isinstance(node, ast.Name):
        return node.id == app.target
    return (
        isinstance(node, ast.Attribute)
        and app.target.endswith(f".{node.attr}")
        and ast.unparse(node) == app.target
    )


def is_same(source: Source, node: ast.AST, app: App) -> bool:
    """Whether a name means the app in its scope, and not a parameter, for example."""
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
                    f"its app is a {OTHERS[first]} app, but these workers start and stop "
                    "with a FastAPI app"
                )
    if where := made_elsewhere(source):
        return f"its app is made in another file ({where}): name that file"
    return "no FastAPI app is made in it: name the file that makes it"


def made_elsewhere(source: Source) -> str:
    """The module from which a file imports its app, "" for none."""
    factory = re.compile(r"((create|make|build|get|init)_)?(\w+_)?(app|application)\Z")
    for name, origin in source.origins.items():
        module = origin.rpartition(".")[0]
        if factory.match(name) and module:
            return module
    for node in source.nodes:
        if isinstance(node, ast.Call) and (target := server_target(node)):
            return target.partition(":")[0]
    return ""


def mentions(node: ast.AST, app: App) -> bool:
    return any(is_target(each, app) for each in ast.walk(node))
