"""Proves that an edit adds the wiring and changes nothing else."""

from __future__ import annotations

import ast
import re

from .edit import Edit, move
from .service import Service
from .source import Source, full_name
from .texts import ENTERED, INCLUDED, NotProven


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
