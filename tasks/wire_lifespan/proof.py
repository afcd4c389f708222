"""Proves that an edit adds the wiring and changes nothing else."""

from __future__ import annotations

import ast
import re

from .edit import Edit, move
from .service import Service
from .source import Source, full_name, module_of
from .texts import ENTERED, OLD_ROUTER, ROUTER, NotProven


def is_include(use: ast.AST, source: Source) -> bool:
    """Whether a name is included as a router, in the current or the earlier form."""
    call = source.parents[use]
    if is_router(call, source) and getattr(call, "args", []) == [use]:
        use, call = call, source.parents[call]
    elif not source.origin(use).endswith(f".{OLD_ROUTER.name}"):
        return False
    return (
        isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "include_router"
        and (call.args, call.keywords) == ([use], [])
        and isinstance(source.parents[call], ast.Expr)
    )


def is_router(call: ast.AST, source: Source) -> bool:
    """Whether a node calls the library's `workers_router` with one argument."""
    return (
        isinstance(call, ast.Call)
        and source.origin(call.func) == f"{ROUTER.module}.{ROUTER.name}"
        and (len(call.args), call.keywords) == (1, [])
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


def prove(old: Source, new: Source, edit: Edit, service: Service) -> None:
    """Makes sure that only the wiring is new.

    Raises:
        NotProven: Something else changed.
    """
    if without_wiring(new, service) != without_wiring(old, service):
        raise NotProven("the rest of the syntax tree differs")
    if not service.uses(new):
        raise NotProven("the wiring cannot be found in the new file")
    rows = iter(zip(new.lines, new.ends, strict=True))
    for row, (line, end) in enumerate(zip(old.lines, old.ends, strict=True)):
        expected = move(line, edit.unit) if row in edit.moved else line
        if not any(text == expected and end in (each, "") for text, each in rows):
            raise NotProven(f"line {row + 1} is missing")


def without_wiring(source: Source, service: Service) -> list[object]:
    """The outline of the syntax tree without this service's wiring."""
    if not re.search(f"{ENTERED.name}|{ROUTER.name}", source.text):
        return outline(source.tree)
    source = Source(source.lines, source.ends)  # A copy, because its tree is changed.
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
    for node, alias in unused_routers(source, service):
        node.names.remove(alias)
        left[id(node)] = [node] if node.names else []
    replace_statements(source, left)
    return outline(source.tree)


def replace_statements(source: Source, left: dict[int, list[ast.stmt]]) -> None:
    """Replaces statements, by their ids, with the statements that are left of them."""
    for node in source.nodes:
        for _, suite in ast.iter_fields(node):
            if isinstance(suite, list):
                suite[:] = [
                    kept for each in suite for kept in left.get(id(each), [each])
                ]


def unused_routers(
    source: Source, service: Service
) -> list[tuple[ast.ImportFrom, ast.alias]]:
    """The imports of the library's router that only this wiring uses."""
    own = [
        call
        for use in service.uses(source)
        if is_router(call := source.parents[use], source) and is_include(use, source)
    ]
    used = {
        node.id
        for node in source.nodes
        if isinstance(node, ast.Name)
        and not any(node is getattr(call, "func", None) for call in own)
    }
    return [
        (node, each)
        for node in source.nodes
        if isinstance(node, ast.ImportFrom) and module_of(node) == ROUTER.module
        for each in node.names
        if each.name == ROUTER.name and (each.asname or each.name) not in used
    ]


def outline(tree: ast.Module) -> list[object]:
    """The content of `ast.dump` as a list; `ast.dump` itself fails on deep trees."""
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
    """Whether a statement imports an entry of the service's workers."""
    return isinstance(node, ast.ImportFrom) and any(
        service.is_meant(full_name(node, each)) for each in node.names
    )
