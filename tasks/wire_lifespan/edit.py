"""Chooses between wrapping the yield and including the router, and makes the edit."""

from __future__ import annotations

import ast
import re
from collections.abc import Collection
from itertools import compress
from typing import NamedTuple

from .app import App, find_app, find_apps
from .imports import import_edit, router_edit
from .last_line import last_mention
from .lifespan import (
    check_handlers,
    enters_later,
    find_lifespan,
    is_lifespan_of_others,
    own_yields,
    yield_to_wrap,
)
from .service import Service, project_modules
from .source import Source, indent_of, strings_over_lines
from .texts import ENTER, ENTERED, INCLUDE, LEFT, Stop
from .version import check_version


class Edit(NamedTuple):
    """The edit of a file: lines to insert before rows, and rows to indent."""

    name: str
    insertions: list[tuple[int, list[str]]]
    moved: frozenset[int] = frozenset()
    unit: str = ""
    router: str = ""
    note: str = ""


def choose_edit(source: Source, service: Service) -> Edit:
    """Chooses the lifespan's yield or the router, and the place of the edit.

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


def check_router(
    source: Source, app: App, lifespan: ast.AsyncFunctionDef | None
) -> None:
    """Makes sure that a router can be included, and that its failed start stops the app.

    Raises:
        Stop: It cannot, or does not.
    """
    if not app.target:
        raise Stop(
            LEFT,
            f"its app has no name ({app.label} is passed on at once): bind it to a name",
            by_hand=True,
        )
    for each in own_yields(lifespan) if lifespan else ():
        if is_not_a_mapping(each.value):
            raise Stop(
                LEFT,
                f"line {each.lineno} yields a value that is not a mapping, and FastAPI "
                "cannot merge it with a router's lifespan",
                by_hand=True,
            )
        check_handlers(source, each, source.scope(each))


def is_not_a_mapping(node: ast.expr | None) -> bool:
    if isinstance(node, ast.Constant):
        return node.value is not None
    return isinstance(node, (ast.Tuple, ast.List, ast.Set, ast.JoinedStr))


def wrap(source: Source, service: Service, statement: ast.stmt) -> Edit:
    """Puts the yield inside `async with initialize_workers():`."""
    row, end = statement.lineno - 1, statement.end_lineno or statement.lineno
    indent = indent_of(source.lines[row])
    unit = unit_of(source, statement, indent)
    name, imports = import_edit(source, service, ENTERED, statement)
    text = source.lines[row:end]
    inside = strings_over_lines(text)
    return Edit(
        name,
        [*imports, (row, [indent + ENTER.format(name=name)])],
        frozenset(
            row + i for i in range(end - row) if i not in inside and text[i].strip()
        ),
        unit,
    )


def include(source: Source, service: Service, app: App) -> Edit:
    """Includes the router after all code that could undo it."""
    last = last_mention(source, service, app)
    row = last.end_lineno or last.lineno
    while row < len(source.lines) and re.match(r"[^#]*\\\Z", source.lines[row - 1]):
        row += 1
    indent = indent_of(source.lines[last.lineno - 1])
    name, imports = import_edit(source, service, ENTERED, app.bindings[0])
    router, library = router_edit(source, service, app.bindings[0])
    line = indent + INCLUDE.format(app=app.target, router=router, name=name)
    # If several insertions have the same row, the last one in the list comes first.
    return Edit(name, [*imports, *library, (row, [line])], router=router)


def unit_of(source: Source, statement: ast.stmt, indent: str) -> str:
    """One level of the indentation that is used around a statement."""
    parent = source.parents[statement]
    while not hasattr(parent, "lineno"):
        parent = source.parents[parent]
    outer = indent_of(source.lines[parent.lineno - 1])
    if indent.startswith(outer) and indent != outer:
        return indent[len(outer) :]
    return "\t" if "\t" in indent else "    "


def make(source: Source, edit: Edit) -> Source:
    """The file after the edit."""
    moved = {row: move(source.lines[row], edit.unit) for row in edit.moved}
    return rebuilt(source, edit.insertions, moved)


def rebuilt(
    source: Source,
    insertions: list[tuple[int, list[str]]],
    texts: dict[int, str],
    drop: Collection[int] = (),
) -> Source:
    """The file with inserted lines, changed rows and dropped rows."""
    lines = [texts.get(row, line) for row, line in enumerate(source.lines)]
    ends = list(source.ends)
    kept = [row not in drop for row in range(len(lines))]
    usual = max(("\n", "\r\n", "\r"), key=ends.count)
    for row, new in sorted(insertions, key=lambda item: item[0], reverse=True):
        end = ends[row - 1] if row else (ends or [usual])[0] or usual
        if not end:
            ends[row - 1], new_ends = usual, [usual] * (len(new) - 1) + [""]
        else:
            new_ends = [end] * len(new)
        lines[row:row] = new
        ends[row:row] = new_ends
        kept[row:row] = [True] * len(new)
    return Source(list(compress(lines, kept)), list(compress(ends, kept)))


def move(line: str, unit: str) -> str:
    """The line, indented by one level."""
    text = line.lstrip(" \t\f")
    return line[: len(line) - len(text)] + unit + text
