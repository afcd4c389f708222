"""Finds the lifespan of an app, and the yield that can be wrapped."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from .app import App, mounted_on
from .source import Function, Source, bound_in, own_nodes, row_of
from .texts import LEFT, Stop


def find_lifespan(source: Source, app: App) -> ast.AsyncFunctionDef | None:
    """The function in this file that is certainly the app's lifespan, if there is one."""
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
    """Whether another app of the file that is not mounted has the same lifespan."""
    return any(
        find_lifespan(source, other) is lifespan and not mounted_on(source, other)
        for other in apps
        if other.bindings != app.bindings
    )


def is_replaced(node: ast.AST) -> bool:
    """Whether a node replaces the app's lifespan."""
    if isinstance(node, ast.Attribute):
        return node.attr == "lifespan_context" and isinstance(node.ctx, ast.Store)
    return isinstance(node, ast.Constant) and node.value == "lifespan_context"


def own_yields(function: ast.AsyncFunctionDef) -> list[ast.Yield]:
    """The yields of a function, without those of nested functions."""
    nodes = (node for each in function.body for node in own_nodes(each))
    return [node for node in nodes if isinstance(node, ast.Yield)]


def yield_to_wrap(source: Source, lifespan: ast.AsyncFunctionDef) -> ast.stmt | None:
    """The statement with the only yield, if it can be wrapped safely."""
    yields = own_yields(lifespan)
    if len(yields) != 1:
        return None
    statement = source.statement(yields[0])
    if not (
        isinstance(statement, (ast.Expr, ast.Assign, ast.AnnAssign))
        and statement.value is yields[0]
        and source.has_its_lines(statement)
        # Otherwise the awaited setup would run after the start of the workers.
        and not any(isinstance(node, ast.Await) for node in own_nodes(statement))
    ):
        return None
    for child, parent in ancestors(source, statement, lifespan):
        if isinstance(parent, (ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler)):
            return None
        if is_try(parent) and child in getattr(parent, "orelse", ()):
            continue  # The handlers do not catch errors from here.
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
    """Whether a `try` or a `with` suppresses errors: any, or all of a class."""
    if isinstance(node, (ast.With, ast.AsyncWith)):
        return any(keeps_errors(source, each.context_expr, what) for each in node.items)
    return any(
        (handler.type is None or catches(handler.type, what))
        and not isinstance(handler.body[-1], ast.Raise)
        for handler in getattr(node, "handlers", ())
    )


def keeps_errors(source: Source, manager: ast.expr, what: str) -> bool:
    """Whether a context manager is `suppress()`, or a class in this file that acts like it."""
    if not isinstance(manager, ast.Call):
        return False
    name = source.origin(manager.func)
    if name.endswith("suppress"):
        return any(catches(argument, what) for argument in manager.args)
    return ends_in_true(source, name)


def ends_in_true(source: Source, name: str) -> bool:
    """Whether a context manager in this file suppresses every error."""
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
    """Whether a handler catches this class or, for "", any error of a failed start."""
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


def check_handlers(source: Source, node: ast.AST, lifespan: ast.AST) -> None:
    """Makes sure that the code around the yield does not hide a failed start.

    Raises:
        Stop: It would hide it.
    """
    for child, parent in ancestors(source, node, lifespan):
        is_handled = child in getattr(parent, "body", ())
        if (is_handled and swallows(source, parent, "BaseException")) or ends_all(
            source, parent
        ):
            raise Stop(
                LEFT,
                f"its lifespan catches every exception around line {row_of(node)}, and so "
                "would hide that the workers cannot start: let it raise exceptions again",
                by_hand=True,
            )


def ends_all(source: Source, node: ast.AST) -> bool:
    """Whether a `finally` discards the current exception."""
    return any(
        isinstance(each, ast.Return)
        or (isinstance(each, ast.Call) and source.origin(each.func) == "os._exit")
        for statement in getattr(node, "finalbody", ())
        for each in own_nodes(statement)
    )
