"""Finds the statement after which no code can undo what the app includes."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence

from .app import App, is_target, mentions
from .service import Service, found_in, imports_of
from .source import (
    Function,
    Source,
    called,
    is_guard,
    own_nodes,
    runs_a_server,
    server_target,
)
from .texts import LEFT, Stop


def last_mention(source: Source, service: Service, app: App) -> ast.stmt:
    """The statement after which no code can undo what the app includes.

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
    """Whether a statement, or one around it, passes the app on or runs it."""
    around = {
        id(node) for each in app.bindings for node in statements_around(source, each)
    }
    return any(
        id(node) not in around and is_last(source, app, node, known)
        for node in statements_around(source, statement)
    )


def statements_around(source: Source, statement: ast.stmt) -> Iterator[ast.stmt]:
    """A statement, and the statements around it in its scope."""
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
    """The statement of a suite that is or contains a node."""
    while source.suite_of.get(id(node)) is not suite:
        node = source.parents[node]
    return node


def mentions_of(source: Source, service: Service, app: App) -> list[ast.stmt]:
    """The statements in the app's scope that touch the app, except decorators of routes."""
    touching = functions_that_touch(source, app)
    found = []
    for node in source.nodes:
        is_it = is_target(node, app) or (
            isinstance(node, ast.Call) and called(node) in touching
        )
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            # A module that is imported late may import the app.
            is_it = any(found_in(service.file, *each)[1] for each in imports_of(node))
        if is_it and source.scope(node) is app.scope:
            statement = source.statement(node)
            if not isinstance(statement, (*Function, ast.ClassDef)):
                found.append(statement)
    return found


def functions_that_touch(source: Source, app: App) -> set[str]:
    """The functions of a file that name the app, or call such a function."""
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


def is_last(
    source: Source, app: App, statement: ast.stmt, known: dict[int, bool]
) -> bool:
    """Whether a statement passes the app on, runs it or rebinds its name."""
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
    """Whether the name is used below a statement in a way that only fits a FastAPI app."""
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


def runs_app(source: Source, app: App, call: ast.Call) -> bool:
    """Whether a call serves the app and returns only when the service ends."""
    if runs_a_server(source, call):
        return mentions(call, app) or bool(server_target(call))
    return any(
        isinstance(node, ast.Call) and runs_a_server(source, node)
        for each in source.tree.body
        if isinstance(each, Function) and each.name == called(call)
        if mentions(each, app)
        for node in ast.walk(each)
    )


def common_suite(chains: Sequence[Sequence[list[ast.stmt]]]) -> list[ast.stmt]:
    """The innermost suite that is in every chain."""
    return next(
        suite
        for suite in reversed(chains[0])
        if all(any(suite is each for each in chain) for chain in chains)
    )
