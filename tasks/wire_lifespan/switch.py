"""Switches imports of names that moved from the service's `workers` into the library.

Only imports of the names in `moved.MOVED` change, and uses of those names that are now
functions. An import stays and is reported if it cannot be switched, or if the switch cannot
be proven.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple

from .edit import rebuilt
from .imports import (
    free_name,
    import_edit,
    is_of_package,
    is_of_python,
    library_place,
    line_length,
    natural,
    router_of,
    row_before,
    runs_of,
    wrapped,
)
from .moved import (
    MOVED,
    TAKES,
    OldImport,
    described,
    find_old_imports,
    new_module,
    old_imports,
    other_references,
)
from .proof import outline, replace_statements
from .service import Service
from .source import (
    Source,
    bound_names,
    indent_of,
    module_of,
    read,
    rows_of,
    top_imports,
    top_level,
)
from .texts import IMPORT, OLD_ROUTER, ROUTER, Form, NotProven, Stop


class Switched(NamedTuple):
    """The new bytes of a file, the changed lines, and the edits left for a person."""

    data: bytes | None
    lines: list[int]
    problems: list[str]


class Name(NamedTuple):
    """A moved name, and its name in the file before and after."""

    module: str
    name: str
    old: str
    new: str

    @property
    def text(self) -> str:
        return self.name if self.new == self.name else f"{self.name} as {self.new}"


class Switch(NamedTuple):
    """An import to switch, and its names."""

    node: ast.ImportFrom
    names: list[Name]


def switch_imports(data: bytes, service: Service) -> Switched:
    """Switches the imports of a file; writes nothing."""
    unread = Switched(None, [], [str(each) for each in find_old_imports(data, service)])
    if not unread.problems:
        return unread
    try:
        source, encoding = read(data)
    except Stop:
        return unread
    try:
        switches, problems = choose(source, service)
        problems += other_references(source, service)
        if not switches:
            return unread
        new = switched(source, service, switches)
    except (Stop, NotProven, SyntaxError, RecursionError):
        return unread
    lines = sorted(each.node.lineno for each in switches)
    return Switched(
        new.text.encode(encoding), lines, [str(each) for each in sorted(problems)]
    )


# --- choose -----------------------------------------------------------------------------


def choose(source: Source, service: Service) -> tuple[list[Switch], list[OldImport]]:
    """The imports that can be switched, and those that a person must change."""
    switches, problems = [], []
    found = old_imports(source, service)
    for node, old in found:
        names = [
            Name(
                new_module(old),
                each.name,
                each.asname or each.name,
                new_name(source, service, each),
            )
            for each in node.names
        ]
        if (
            all(each.name in MOVED[old] for each in node.names)
            and source.has_its_lines(node)
            and all(can_follow(source, service, each) for each in names)
            and (is_plain(source, node) or all(each.old == each.new for each in names))
        ):
            switches.append(Switch(node, names))
        else:
            problems.append(described(node, old))
    return switches, problems


def new_name(source: Source, service: Service, alias: ast.alias) -> str:
    """The name in the file after the switch.

    Only the router's name may change: the library's router is imported once for all services.
    """
    old = alias.asname or alias.name
    if alias.name != ROUTER.name:
        return old
    if there := router_of(source):
        return there
    others = [
        node
        for name, node in bound_names(source)
        if name == ROUTER.name and not is_old_name(source, service, node, alias.name)
    ]
    if old == OLD_ROUTER.alias.format(service.name) and not others:
        return ROUTER.name
    return old


def is_old_name(source: Source, service: Service, node: ast.AST, name: str) -> bool:
    """Whether a node is the import of a moved name."""
    return (
        isinstance(node, ast.alias)
        and node.name == name
        and any(
            each is source.parents[node] for each, _ in old_imports(source, service)
        )
    )


def can_follow(source: Source, service: Service, name: Name) -> bool:
    """Whether each use of a name can be changed together with its import."""
    if name.name not in TAKES:
        return True
    uses = uses_of(source, name.old)
    return (
        bool(uses)
        and all(is_simple_use(source, each, name.name) for each in uses)
        and all(
            is_old_name(source, service, node, name.name)
            for each, node in bound_names(source)
            if each == name.old
        )
        and name.old not in exported(source)
    )


def exported(source: Source) -> set[str]:
    """The names in `__all__`, which other modules may import from this one."""
    return {
        each.value
        for node in source.tree.body
        if isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign))
        if any(
            isinstance(each, ast.Name) and each.id == "__all__"
            for each in ast.walk(node)
        )
        for each in ast.walk(node)
        if isinstance(each, ast.Constant) and isinstance(each.value, str)
    }


def uses_of(source: Source, name: str) -> list[ast.Name]:
    return [
        node
        for node in source.nodes
        if isinstance(node, ast.Name)
        and node.id == name
        and isinstance(node.ctx, ast.Load)
    ]


def is_simple_use(source: Source, use: ast.Name, name: str) -> bool:
    """Whether a router is included, or `find_problems()` is called."""
    parent = source.parents[use]
    if isinstance(parent, ast.keyword):
        parent = source.parents[parent]
    if name == "find_problems":
        return isinstance(parent, ast.Call) and parent.func is use and is_bare(parent)
    if isinstance(parent, (ast.Tuple, ast.List)):
        return True
    return (
        isinstance(parent, ast.Call)
        and getattr(parent.func, "attr", "") == "include_router"
        and parent.func is not use
    )


def is_bare(call: ast.Call) -> bool:
    return not (call.args or call.keywords)


def is_plain(source: Source, node: ast.ImportFrom) -> bool:
    """Whether the lines of an import have no comment."""
    return not any("#" in source.lines[row] for row in rows_of(node))


# --- edit -------------------------------------------------------------------------------


def switched(source: Source, service: Service, switches: list[Switch]) -> Source:
    """The file with these imports switched.

    Raises:
        Stop: A name that the switch needs is taken.
        NotProven: The edit would change more than it should.
    """
    edit = Edits(source, service)
    moves = [each for each in switches if can_move(source, each.node)]
    stays = [each for each in switches if each not in moves]
    edit.pass_arguments(switches)
    for each in stays:
        edit.switch_in_place(each)
    for run in runs_of(source, top_imports(source)):
        here = [each for each in moves if any(each.node is node for node in run)]
        if here:
            edit.move(here, [node for node in run if module_of(node) != "__future__"])
    new = rebuilt(source, edit.insertions, edit.texts(), edit.drop)
    prove(source, new, edit)
    return new


def can_move(source: Source, node: ast.ImportFrom) -> bool:
    """Whether an import is at module level and has no comment."""
    above = source.lines[node.lineno - 2].lstrip() if node.lineno > 1 else ""
    return (
        node in top_imports(source)
        and is_plain(source, node)
        and not above.startswith("#")
    )


class Edits:
    """Collects the edits of one file."""

    def __init__(self, source: Source, service: Service) -> None:
        self.source = source
        self.service = service
        self.switches: list[Switch] = []
        self.insertions: list[tuple[int, list[str]]] = []
        self.drop: set[int] = set()
        self.heads: dict[int, str] = {}
        # By row: the first and last column in bytes, and the replacement text.
        self.spans: dict[int, list[tuple[int, int, str]]] = {}
        self.arguments: dict[Form, str] = {}
        self.added: set[Import] = set()

    def add(self, node: ast.stmt, module: str, name: str, as_name: str) -> None:
        """Records a new import in the scope of a statement."""
        path = path_of(self.source, node)
        self.added.add(Import(path, module, name, as_name))

    def texts(self) -> dict[int, str]:
        """The new text of each changed row."""
        texts = dict(self.heads)
        for row, spans in self.spans.items():
            line = texts.get(row, self.source.lines[row]).encode()
            for start, end, text in sorted(spans, reverse=True):
                line = line[:start] + text.encode() + line[end:]
            texts[row] = line.decode()
        return texts

    def pass_arguments(self, switches: list[Switch]) -> None:
        """Adds the argument to each use of a new function, and imports the arguments."""
        self.switches = switches
        # If several insertions have the same row, the last one in the list comes first.
        forms = {TAKES[name.name] for name in self.taking(switches)}
        for form in sorted(forms, key=lambda form: form.module, reverse=True):
            taking = [
                each.node
                for each in switches
                if any(TAKES.get(name.name) is form for name in each.names)
            ]
            name = self.service.imported(self.source, form)
            if not name:
                module = beside(taking[0], form)
                name = free_name(self.source, self.service, form, module)
                self.import_argument(form, name, taking)
            self.arguments[form] = name
        names = {each.old: each for each in self.taking(switches)}
        for old, taking_name in names.items():
            for use in uses_of(self.source, old):
                self.change_use(use, taking_name)

    def taking(self, switches: list[Switch]) -> Iterator[Name]:
        return (name for each in switches for name in each.names if name.name in TAKES)

    def import_argument(
        self, form: Form, name: str, taking: list[ast.ImportFrom]
    ) -> None:
        """Imports the argument beside the imports of the functions that take it."""
        source, body = self.source, self.source.tree.body
        text = form.name if name == form.name else f"{form.name} as {name}"
        for node in taking:
            module = beside(node, form)
            if node not in body:
                self.add(node, module, form.name, name)
                line = IMPORT.format(module=module, name=text)
                self.insert(node.end_lineno or 0, ["", line], node)
        of_module = [node for node in taking if node in body]
        if of_module:
            module = beside(of_module[0], form)
            self.add(of_module[0], module, form.name, name)
            uses = [
                top_level(source, use)
                for node in of_module
                for each in node.names
                for use in uses_of(source, each.asname or each.name)
            ]
            first = min(uses, key=lambda use: use.lineno)
            # A function above the imports may use it.
            if first.lineno < of_module[0].lineno:
                first = body[min(body.index(of_module[0]) + 1, len(body) - 1)]
            self.insertions += import_edit(source, self.service, form, first, module)[1]

    def insert(self, row: int, lines: list[str], like: ast.stmt) -> None:
        """Inserts lines with the indentation of a statement."""
        indent = indent_of(self.source.lines[like.lineno - 1])
        self.insertions.append((row, [line and indent + line for line in lines]))

    def change_use(self, use: ast.Name, name: Name) -> None:
        argument = self.arguments[TAKES[name.name]]
        row, start, end = use.lineno - 1, use.col_offset, use.end_col_offset or 0
        line = self.source.lines[row].encode()
        if line[start:end].decode("utf-8", "replace") != name.old:
            raise NotProven("a use is not where the syntax tree says")
        text = name.new
        if name.name == "find_problems":
            rest = line[end:]
            opened = rest.find(b"(")
            if opened < 0 or rest[:opened].strip():
                raise NotProven("a call has its parentheses on another line")
            text = name.new + rest[: opened + 1].decode() + argument
            end += opened + 1
        else:
            text = f"{name.new}({argument})"
        self.spans.setdefault(row, []).append((start, end, text))

    def switch_in_place(self, switch: Switch) -> None:
        """Switches an import that is in a block or has a comment, without moving it."""
        node = switch.node
        names = [each for each in switch.names if not self.is_imported(each)]
        for each in names:
            self.add(node, each.module, each.name, each.new)
        row = node.lineno - 1
        if is_plain(self.source, node):
            self.drop.update(rows_of(node))
            # If several insertions have the same row, the last one in the list comes first.
            self.insert(node.end_lineno or 0, self.lines_of(names), node)
            return
        line, old = self.source.lines[row], module_of(node)
        head, word, tail = line.partition(old)
        if not word or head.strip() != "from" or tail.split()[:1] != ["import"]:
            raise NotProven("an import is not written as expected")
        self.heads[row] = head + switch.names[0].module + tail

    def is_imported(self, name: Name) -> bool:
        """Whether a name is the library's router and already imported."""
        return name.name == ROUTER.name and router_of(self.source) == name.new

    def lines_of(self, names: list[Name]) -> list[str]:
        """One import for each module and one for each alias, in isort's order."""
        length = line_length(self.service.file)
        groups: dict[tuple[str, str], set[str]] = {}
        for each in names:
            alias = "" if each.new == each.name else each.text
            groups.setdefault((each.module, alias), set()).add(each.text)
        found = [
            (module, sorted(texts, key=order_of))
            for (module, _), texts in groups.items()
        ]
        found.sort(key=lambda item: (natural(item[0]), order_of(item[1][0])))
        return [
            line
            for module, texts in found
            for line in wrapped(
                IMPORT.format(module=module, name=", ".join(texts)), length
            )
        ]

    def move(self, switches: list[Switch], run: list[ast.stmt]) -> None:
        """Moves imports at module level to the imports of installed packages."""
        names = [
            name
            for each in switches
            for name in each.names
            if not self.is_imported(name)
        ]
        for name in names:
            self.add(switches[0].node, name.module, name.name, name.new)
        for each in switches:
            self.drop.update(rows_of(each.node))
        rest = [node for node in run if rows_of(node)[0] not in self.drop]
        first = switches[0].node
        # If several insertions have the same row, the last one in the list comes first.
        if any(is_of_package(node, self.service) for node in rest):
            for module in sorted({each.module for each in names}, reverse=True):
                row, _, _ = library_place(self.source, self.service, rest, module)
                lines = self.lines_of([each for each in names if each.module == module])
                self.insertions.append((min(row, first.lineno - 1), lines))
        elif names:
            row, before, after = self.new_place(first, run, rest)
            lines = self.lines_of(names)
            self.insertions.append((row, [*before, *lines, *after]))
        for each in switches:
            self.close_gap(each.node)

    def new_place(
        self, first: ast.stmt, run: list[ast.stmt], rest: list[ast.stmt]
    ) -> tuple[int, list[str], list[str]]:
        """The place of the imports if no installed package is imported here."""
        if self.is_empty(self.section(first)):
            return first.lineno - 1, [], []
        standard = [node for node in rest if is_of_python(node)]
        if standard:
            return standard[-1].end_lineno or 0, [""], []
        return row_before(self.source, run[0]), [], [""]

    def section(self, node: ast.stmt) -> range:
        """The rows around a statement, up to the next blank lines."""
        rows = rows_of(node)
        start, end = rows.start, rows.stop
        while start and self.source.lines[start - 1].strip():
            start -= 1
        while end < len(self.source.lines) and self.source.lines[end].strip():
            end += 1
        return range(start, end)

    def is_empty(self, section: range) -> bool:
        """Whether all these rows are dropped and no line is inserted there."""
        return self.drop.issuperset(section) and not any(
            section.start <= row <= section.stop for row, _ in self.insertions
        )

    def close_gap(self, node: ast.stmt) -> None:
        """Drops the blank lines above a section that became empty."""
        section = self.section(node)
        if not self.is_empty(section):
            return
        lines, row = self.source.lines, section.start - 1
        while row >= 0 and not lines[row].strip():
            self.drop.add(row)
            row -= 1
        row = section.stop
        while section.start == 0 and row < len(lines) and not lines[row].strip():
            self.drop.add(row)
            row += 1


def beside(node: ast.ImportFrom, form: Form) -> str:
    """The module of a form, with the package in the form of another import."""
    return f"{module_of(node).rpartition('.')[0]}.{form.module}"


def order_of(text: str) -> tuple[object, ...]:
    """The order of names in an import: constants, classes, functions."""
    name = text.split()[0]
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return (kind, natural(name))


# --- prove ------------------------------------------------------------------------------


def prove(old: Source, new: Source, edit: Edits) -> None:
    """Makes sure that undoing the switch in the new tree gives the old tree.

    Raises:
        NotProven: It does not, or a line changed that should not.
    """
    service, switches = edit.service, edit.switches
    if len(old_imports(new, service)) != len(old_imports(old, service)) - len(switches):
        raise NotProven("an old import is still there")
    found = {key: node for key, node, _ in imported(new)}
    if not edit.added <= found.keys():
        raise NotProven("a new import is not there")
    for use in new.nodes:
        if (
            isinstance(use, ast.Name)
            and use.id in edit.arguments.values()
            and isinstance(new.scope(use), ast.Module)
            and not any(
                key.as_name == use.id and node.lineno < use.lineno
                for key, node in found.items()
            )
        ):
            raise NotProven(f"{use.id} is used above its import")
    if undone(new, edit) != before(old, edit):
        raise NotProven("the rest of the syntax tree differs")
    texts = edit.texts()
    rows = iter(zip(new.lines, new.ends, strict=True))
    for row, (line, end) in enumerate(zip(old.lines, old.ends, strict=True)):
        expected = texts.get(row, line)
        if row not in edit.drop and not any(
            text == expected and "" in (end, each) or (text, each) == (expected, end)
            for text, each in rows
        ):
            raise NotProven(f"line {row + 1} is missing")


class Import(NamedTuple):
    """An imported name, and the names of the scopes around it."""

    path: tuple[str, ...]
    module: str
    name: str
    as_name: str


def path_of(source: Source, node: ast.AST) -> tuple[str, ...]:
    path: list[str] = []
    while not isinstance(node, ast.Module):
        node = source.scope(node)
        path.insert(0, getattr(node, "name", ""))
    return tuple(path)


def imported(source: Source) -> Iterator[tuple[Import, ast.ImportFrom, ast.alias]]:
    for node in source.nodes:
        if isinstance(node, ast.ImportFrom):
            path = path_of(source, node)
            for each in node.names:
                name = each.asname or each.name
                yield Import(path, module_of(node), each.name, name), node, each


def before(old: Source, edit: Edits) -> list[object]:
    """The outline of the old tree without the switched imports, with their uses marked."""
    source = Source(old.lines, old.ends)  # A copy, because its tree is changed.
    starts = {each.node.lineno for each in edit.switches}
    for name in edit.taking(edit.switches):
        for use in uses_of(source, name.old):
            use.id = f"switched {name.name}"
    gone = {
        id(node): list[ast.stmt]()
        for node, _ in old_imports(source, edit.service)
        if node.lineno in starts
    }
    return without_added(source, edit, gone)


def undone(new: Source, edit: Edits) -> list[object]:
    """The outline of the new tree without the new imports, with their uses marked."""
    source = Source(new.lines, new.ends)
    names = {each.new: each for each in edit.taking(edit.switches)}
    for node in source.nodes:
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        name = names.get(node.func.id)
        if not name or not is_name(node, edit.arguments[TAKES[name.name]]):
            continue
        node.func.id = f"switched {name.name}"
        if name.name == "find_problems":
            node.args = []
        else:
            put(source.parents[node], node, node.func)
    return without_added(source, edit, {})


def is_name(call: ast.Call, name: str) -> bool:
    """Whether a name is the only argument of a call."""
    return not call.keywords and [
        each.id if isinstance(each, ast.Name) else "" for each in call.args
    ] == [name]


def put(parent: ast.AST, old: ast.AST, new: ast.AST) -> None:
    for field, value in ast.iter_fields(parent):
        if value is old:
            setattr(parent, field, new)
        elif isinstance(value, list):
            value[:] = [new if each is old else each for each in value]


def without_added(
    source: Source, edit: Edits, gone: dict[int, list[ast.stmt]]
) -> list[object]:
    for key, node, alias in list(imported(source)):
        if key in edit.added:
            node.names.remove(alias)
            if not node.names:
                gone[id(node)] = []
    replace_statements(source, gone)
    return outline(source.tree)
