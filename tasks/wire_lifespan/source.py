"""A Python file: its lines, its syntax tree and the origins of its names."""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator

from .texts import ENTERED, LEFT, OLD_ROUTER, ROUTER, Stop


class Source:
    """A Python file in lines, with its syntax tree.

    `lines` have no line endings; `ends` has them: "\\n", "\\r\\n", "\\r" or, at the end of
    the file, "". Rows count from 0.
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
        """The full name of each imported name, with leading dots if it is relative."""
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
        """The dotted name to which an expression refers, "" for none."""
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
        """The function, class or module whose body contains a node."""
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
        """The text after a statement on its last line."""
        assert statement.end_lineno and statement.end_col_offset is not None
        line = self.lines[statement.end_lineno - 1].encode()
        return line[statement.end_col_offset :].decode().strip()

    def has_its_lines(self, statement: ast.stmt) -> bool:
        """Whether a statement shares its lines only with comments."""
        rest = self.after(statement)
        return self.begins_its_line(statement) and (not rest or rest[0] == "#")


# The names that matter here in a star import of these modules.
STARS = {
    "fastapi": ["FastAPI"],
    ENTERED.module: [ENTERED.name],
    OLD_ROUTER.module: [OLD_ROUTER.name],
    "web": [ROUTER.name],
}
Function = (ast.FunctionDef, ast.AsyncFunctionDef)
Scope = (*Function, ast.Lambda, ast.ClassDef, ast.Module)


def read(data: bytes) -> tuple[Source, str]:
    """Returns a file's source and encoding.

    Raises:
        Stop: It cannot be decoded or parsed.
    """
    try:
        head = re.sub(rb"\r\n?", b"\n", data)  # For Python a lone CR also ends a line.
        encoding, _ = tokenize.detect_encoding(io.BytesIO(head).readline)
        text = data.decode(encoding)
        if text.encode(encoding) != data:
            raise ValueError(f"encoding it as {encoding} again gives other bytes")
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
    """Describes a syntax error: a newer Python's syntax, Jinja, or a mistake."""
    row = min(error.lineno or 1, len(lines)) - 1
    near = "\n".join(lines[max(row - 1, 0) : row + 1])
    if re.search(r"\{%.*%\}|\{\{[^{}]*\}\}", "\n".join(lines)) and (
        re.search(r"\{%.*%\}", text) or "{{" in near
    ):
        return f"it contains Jinja (line {row + 1}): render it first"
    for minor, pattern in NEWER_SYNTAX.items():
        if sys.version_info < (3, minor) and re.search(pattern, near, re.MULTILINE):
            return (
                f"line {row + 1} needs a newer Python than this 3.{sys.version_info[1]}: "
                f"run this with the project's Python, for example with `uvx --python "
                f"3.{max(NEWER_SYNTAX)} --from TEMPLATE chancy-workers wire`"
            )
    return f"line {row + 1}: {error.msg}: correct it and run this again"


# New syntax since Python 3.11, by minor version.
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


def bound_in(source: Source, scope: ast.AST, name: str) -> list[ast.AST]:
    """The nodes that bind a name in a scope: definitions, assignments, imports, parameters."""
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
    """A node and the nodes in it, except the bodies of functions and classes."""
    rest = [node]
    while rest:
        node = rest.pop()
        yield node
        if not isinstance(node, Scope):
            rest.extend(ast.iter_child_nodes(node))


def called(node: ast.Call) -> str:
    """The name of the called function or method, "" for none."""
    return getattr(node.func, "id", "") or getattr(node.func, "attr", "")


def is_guard(node: ast.AST) -> bool:
    """Whether a node is `if __name__ == "__main__":`."""
    return isinstance(node, ast.If) and any(
        isinstance(each, ast.Name) and each.id == "__name__"
        for each in ast.walk(node.test)
    )


RUNNERS = {"run", "serve", "run_app", "run_forever", "run_until_complete"}


def runs_a_server(source: Source, call: ast.Call) -> bool:
    name = source.origin(call.func) or called(call)
    return name.rpartition(".")[2] in RUNNERS and not name.startswith("subprocess")


def server_target(call: ast.Call) -> str:
    """The "package.module:app" in the arguments of a call, "" for none."""
    for each in [*call.args, *(keyword.value for keyword in call.keywords)]:
        if isinstance(each, ast.Constant) and isinstance(each.value, str):
            if re.fullmatch(r"[\w.]+:[\w.()]+", each.value):
                return each.value
    return ""


def indent_of(line: str) -> str:
    """The white space before a line's text, counted after the last form feed."""
    return line[: len(line) - len(line.lstrip(" \t\f"))].rpartition("\f")[2]


def strings_over_lines(lines: list[str]) -> set[int]:
    """The lines that begin inside a string, where white space belongs to its value."""
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


def top_imports(source: Source) -> list[ast.stmt]:
    """The imports at module level that share their lines only with comments."""
    return [
        node
        for node in source.tree.body
        if isinstance(node, (ast.Import, ast.ImportFrom)) and source.has_its_lines(node)
    ]


def top_level(source: Source, node: ast.AST) -> ast.stmt:
    """The statement at module level that contains a node."""
    while source.parents[node] is not source.tree:
        node = source.parents[node]
    assert isinstance(node, ast.stmt)
    return node


def rows_of(node: ast.stmt) -> range:
    return range(node.lineno - 1, node.end_lineno or node.lineno)
