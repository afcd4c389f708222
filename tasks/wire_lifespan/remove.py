"""Removes the wiring."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from itertools import combinations

from .edit import choose_edit, make
from .proof import (
    is_enter,
    is_include,
    outline,
    service_import,
    unused_routers,
    without_wiring,
)
from .service import Service
from .source import Source, indent_of, rows_of, strings_over_lines, top_imports
from .texts import LEFT, NOTHING, NotProven, Stop


def take_out(source: Source, service: Service) -> Source:
    """The file without its wiring; the original file if nothing else changed.

    Raises:
        Stop: There is no wiring, or it was written by hand in another form.
    """
    uses = service.uses(source)
    if not uses:
        raise Stop(NOTHING, f"{service.file.name} is not wired: nothing to remove")
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
            raise in_another_form(statement)
    imports = [
        node
        for node in source.nodes
        if isinstance(node, ast.stmt) and service_import(node, service)
    ]
    for node in imports:
        if node not in top_imports(source) or not is_ours(source, node):
            raise in_another_form(node)
        drop.update(rows_of(node))
    for node, alias in unused_routers(source, service):
        if (
            len(node.names) == 1
            and node in top_imports(source)
            and is_ours(source, node)
        ):
            drop.update(rows_of(node))
            imports.append(node)
        else:
            left[node.lineno - 1] = without_name(source, node, alias)
    return original(source, service, drop, left, imports)


def without_name(source: Source, node: ast.ImportFrom, alias: ast.alias) -> str:
    """The line of an import without one of its names.

    Raises:
        Stop: The import has several lines, or shares its line.
    """
    line = source.lines[node.lineno - 1]
    others = [ast.unparse(each) for each in node.names if each is not alias]
    head, word, _ = line.partition(" import ")
    if len(rows_of(node)) > 1 or not others or not source.has_its_lines(node):
        raise in_another_form(node)
    tail = source.after(node)
    return f"{head}{word}{', '.join(others)}{'  ' if tail else ''}{tail}"


def is_ours(source: Source, statement: ast.stmt) -> bool:
    """Whether a statement has the form that this program writes, without additions."""
    rows = "".join(source.lines[row] for row in rows_of(statement))
    return (
        source.has_its_lines(statement)
        and "#" not in rows
        and len(source.suite_of[id(statement)]) > 1
        and len(getattr(statement, "names", [statement])) == 1
    )


def in_another_form(statement: ast.stmt) -> Stop:
    return Stop(
        LEFT,
        f"line {statement.lineno} uses the workers in another form than this program "
        "writes: remove them by hand",
    )


def original(
    source: Source,
    service: Service,
    drop: set[int],
    left: dict[int, str],
    imports: list[ast.stmt],
) -> Source:
    """The file without the wiring, if possible such that wiring it again restores this file."""
    blank = sorted(
        {
            row
            for node in imports
            for row in (node.lineno - 2, node.end_lineno or 0)
            if 0 <= row < len(source.lines) and not source.lines[row].strip()
        }
    )
    choices = [rows for n in range(len(blank) + 1) for rows in combinations(blank, n)]
    results = []
    expected = without_wiring(source, service)
    for end in ("", None) if source.ends[-1] == "" else (None,):
        for rows in choices:
            result = without(source, drop.union(rows), left, end)
            if result and outline(result.tree) == expected:
                results.append(result)
                if rewired(result, service) == source.text:
                    return result
    if not results:
        raise NotProven("without the wiring, the rest of the file differs")
    return results[0]


def without(
    source: Source, drop: set[int], left: dict[int, str], end: str | None
) -> Source | None:
    """The file without some rows; `end` is the last line's ending, None keeps it."""
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


def can_unwrap(source: Source, block: ast.stmt) -> bool:
    """Whether the block's head is one line without a comment, and its body the next line."""
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
    """The rows of a block's body, dedented by one level."""
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
