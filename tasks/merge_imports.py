"""Merges chancy_initialization.py again if its new imports cause a conflict.

Up to v0.4.1 the file imported the machinery from modules beside it, one line for each
module. Now one statement imports it from chancy_runtime. git reports a conflict if the team
added a line among those imports. There is no conflict if the team's version and the version
that the previous release rendered get the new imports before the merge.
"""

import ast
import re
from collections.abc import Iterator

LIBRARY = "chancy_runtime"
LOG = ast.dump(ast.parse("logging.getLogger(__package__)", mode="eval").body)
AFTER_COMMA = re.compile(r",\s*(#.*)?$")
# A name, and the module from which it is imported, with leading dots.
Origin = tuple[str, str]


def with_library(base: str, team: str, new: str) -> tuple[str, str] | None:
    """The base and the team's version with the imports of the new version.

    Returns None if one of them is not Python, or cannot be changed line by line.
    """
    try:
        trees = [ast.parse(text) for text in (base, new)]
        rendered, wanted = (dict(_origins(tree)) for tree in trees)
        moved = {
            (name, origin)
            for name, origin in rendered.items()
            if origin != LIBRARY and wanted.get(name) == LIBRARY
        }
        switched = [_switched(text, moved) for text in (base, team)] if moved else []
    except (SyntaxError, ValueError):
        return None
    return (switched[0], switched[1]) if switched else None


def _origins(tree: ast.Module) -> Iterator[Origin]:
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield alias.asname or alias.name, _origin(node)


def _origin(node: ast.ImportFrom) -> str:
    return "." * node.level + (node.module or "")


def _switched(text: str, moved: set[Origin]) -> str:
    """The text with these names imported from the library, and `package=` passed to Chancy.

    Raises:
        ValueError: The lines cannot be changed one by one.
    """
    tree = ast.parse(text)
    lines = _Lines(text)
    names: set[str] = set()
    last = None
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom) and _is_chancy(node):
            last = node
        if isinstance(node, ast.ImportFrom):
            found = {
                each.name
                for each in node.names
                if each.asname is None and (each.name, _origin(node)) in moved
            }
            if found:
                names |= found
                lines.take_out(node, _without(node, found))
    if last is None:
        raise ValueError("no import of chancy")
    lines.add_after(last, _statement(names))
    if (call := _chancy_call(tree)) is not None:
        _name_package(tree, call, lines)
    switched = str(lines)
    if _others(ast.parse(switched)) != _others(tree):
        raise ValueError("more than imports would change")
    return switched


def _is_chancy(node: ast.Import | ast.ImportFrom) -> bool:
    """Whether an import is of the package chancy or of a module in it."""
    if isinstance(node, ast.ImportFrom):
        modules = [_origin(node)]
    else:
        modules = [alias.name for alias in node.names]
    return all(module.split(".")[0] == "chancy" for module in modules)


def _without(node: ast.ImportFrom, names: set[str]) -> str:
    """The import without these names; "" if no name is left."""
    left = [alias for alias in node.names if alias.name not in names or alias.asname]
    if not left:
        return ""
    return ast.unparse(ast.ImportFrom(node.module, left, node.level)) + "\n"


def _statement(names: set[str]) -> str:
    """The import from the library in isort's order: classes, then functions."""
    ordered = sorted(names, key=lambda name: (name[0].islower(), name))
    listed = "".join(f"    {name},\n" for name in ordered)
    return f"from {LIBRARY} import (\n{listed})\n"


def _chancy_call(tree: ast.Module) -> ast.Call | None:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="Chancy")):
                return node
    return None


def _name_package(tree: ast.Module, call: ast.Call, lines: "_Lines") -> None:
    """Replaces the rendered `log=` with `package=` in the call of Chancy."""
    for keyword in call.keywords:
        if keyword.arg == "log" and ast.dump(keyword.value) == LOG:
            lines.take_out(keyword, "")
            uses = [each for each in ast.walk(tree) if _is_logging(each)]
            for node in tree.body:
                if len(uses) == 1 and ast.unparse(node) == "import logging":
                    lines.take_out(node, "")
    if call.keywords and all(keyword.arg != "package" for keyword in call.keywords):
        last = call.keywords[-1]
        indent = " " * last.col_offset
        lines.add_after(last, f"{indent}package=__package__,\n")


def _is_logging(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "logging"


def _others(tree: ast.Module) -> list[str]:
    """What must stay the same: the imported names, and all statements but imports."""
    if (call := _chancy_call(tree)) is not None:
        call.keywords = [
            keyword
            for keyword in call.keywords
            if keyword.arg != "package"
            and (keyword.arg != "log" or ast.dump(keyword.value) != LOG)
        ]
    used = any(map(_is_logging, ast.walk(tree)))
    imported, others = set(), []
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imported |= {alias.asname or alias.name for alias in node.names}
        else:
            others.append(ast.dump(node))
    return sorted(imported if used else imported - {"logging"}) + others


class _Lines:
    """The lines of a text; they are removed and added by syntax tree nodes."""

    def __init__(self, text: str) -> None:
        self._before = text.splitlines(keepends=True)
        self._lines = [*self._before]
        self._after = [""] * len(self._lines)

    def take_out(self, node: ast.stmt | ast.keyword, instead: str) -> None:
        """Raises ValueError if anything else is on the node's lines, such as a comment."""
        first, last = node.lineno - 1, node.end_lineno or node.lineno
        text = "".join(self._lines[first:last]).strip()
        if isinstance(node, ast.keyword):
            alone = text == f"{ast.unparse(node)},"
        else:
            alone = not {"#", ";"} & set(text)
        if not alone:
            raise ValueError(text)
        self._lines[first:last] = [instead] + [""] * (last - first - 1)

    def add_after(self, node: ast.stmt | ast.keyword, text: str) -> None:
        """Raises ValueError if other code follows the node on its line."""
        line = (node.end_lineno or node.lineno) - 1
        comma = AFTER_COMMA.search(self._before[line])
        if isinstance(node, ast.keyword) and comma is None:
            raise ValueError(text)
        self._after[line] += text

    def __str__(self) -> str:
        return "".join(map("".join, zip(self._lines, self._after, strict=True)))
