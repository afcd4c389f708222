"""Reads Python files without importing them, and finds the values of names."""

import ast
import operator
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

FunctionDef = ast.FunctionDef | ast.AsyncFunctionDef
_OPERATORS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.BitOr: operator.or_,
}
# Deep enough for real code; it ends the evaluation of names that refer to themselves.
_DEEPEST = 50


@dataclass(frozen=True)
class Imported:
    """A name that an import binds, with the full dotted path of the imported object."""

    path: str
    statement: ast.Import | ast.ImportFrom


@dataclass(frozen=True, eq=False)
class Bound:
    """An expression, and the scope of its names."""

    node: ast.expr
    scope: "Scope"

    @property
    def text(self) -> str:
        return ast.unparse(self.node)

    @property
    def where(self) -> str:
        return f"{self.scope.module.path.name}, line {self.node.lineno}"


@dataclass(eq=False)
class Scope:
    """A module, or a function in it with the names that its statements have bound so far."""

    module: "Module"
    names: dict[str, Any] = field(default_factory=dict)

    def look_up(self, name: str) -> Any:
        """Returns what a name is bound to, None if it is unknown.

        It is an Imported, a Bound, the definition of a function or class, or a tuple with
        the value.
        """
        return self.names[name] if name in self.names else self.module.look_up(name)


class Module:
    """A file of the backend.

    Raises:
        OSError: It cannot be read.
        SyntaxError: It is not Python.
    """

    def __init__(self, backend: "Backend", path: Path, dotted: str) -> None:
        self.backend = backend
        self.path = path
        self.dotted = dotted
        self.package = dotted if path.stem == "__init__" else dotted.rpartition(".")[0]
        self.source = path.read_bytes()
        self.tree = ast.parse(self.source, str(path))

    @cached_property
    def scope(self) -> Scope:
        return Scope(self)

    @cached_property
    def _bindings(self) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for statement in _top_level(self.tree.body):
            for name, binding in bindings_of(statement, self.scope):
                found.setdefault(name, []).append(binding)
        return found

    def at(self, dotted: str) -> "Module | None":
        """Returns this module or another of the backend, by its dotted path."""
        if dotted == self.dotted:
            return self
        return self.backend.module(dotted) if dotted else None

    def look_up(self, name: str) -> Any:
        bindings = self._bindings.get(name, [])
        return bindings[0] if len(bindings) == 1 else None

    def statement_of(self, name: str) -> ast.stmt | None:
        """Returns the only statement of the file that binds a name; None for several."""
        found = [
            statement
            for statement in self.tree.body
            if name in {bound for bound, _ in bindings_of(statement, self.scope)}
        ]
        return found[0] if len(found) == 1 else None

    def segment(self, statement: ast.stmt) -> str:
        """Returns the source of a statement, with its decorators."""
        decorators = getattr(statement, "decorator_list", [])
        first = min([statement.lineno, *(each.lineno for each in decorators)])
        lines = [
            self.line(n) for n in range(first, (statement.end_lineno or first) + 1)
        ]
        return "\n".join(lines)

    def line(self, number: int) -> str:
        """Returns the source of a line; the first line is 1."""
        return self._lines[number - 1]

    @cached_property
    def _lines(self) -> list[str]:
        encoding, _ = tokenize.detect_encoding(BytesIO(self.source).readline)
        return self.source.decode(encoding).replace("\r\n", "\n").split("\n")


class Backend:
    """The files below the folder where import paths start."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._modules: dict[str, Module | None] = {}

    def top_level(self) -> set[str]:
        """Returns the possible first names in imports of the backend's own modules."""
        files = {path.stem for path in self.root.glob("*.py")}
        folders = {path.parent.name for path in self.root.glob("*/*.py")}
        deeper = {path.parents[1].name for path in self.root.glob("*/*/*.py")}
        return {name for name in files | folders | deeper if name.isidentifier()}

    def module(self, dotted: str) -> Module | None:
        """Returns a module of the backend; None if it is not the backend's, or is broken."""
        if dotted not in self._modules:
            self._modules[dotted] = self._read(dotted)
        return self._modules[dotted]

    def _read(self, dotted: str) -> Module | None:
        base = self.root.joinpath(*dotted.split("."))
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                try:
                    return Module(self, path, dotted)
                except (OSError, SyntaxError, UnicodeError, ValueError):
                    return None
        return None


def bindings_of(statement: ast.stmt, scope: Scope) -> Iterator[tuple[str, Any]]:
    """Yields the names that a statement binds, each with what it is bound to."""
    match statement:
        case ast.Import(names=aliases):
            for alias in aliases:
                name = alias.asname or alias.name.partition(".")[0]
                path = alias.name if alias.asname else name
                yield name, Imported(path, statement)
        case ast.ImportFrom(names=aliases):
            base = absolute(statement, scope.module.package)
            for alias in aliases:
                path = f"{base}.{alias.name}"
                yield alias.asname or alias.name, Imported(path, statement)
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            yield name, Bound(value, scope)
        case ast.Assign(
            targets=[ast.Tuple(elts=targets)], value=ast.Tuple(elts=values)
        ) if len(targets) == len(values):
            for target, value in zip(targets, values, strict=True):
                if isinstance(target, ast.Name):
                    yield target.id, Bound(value, scope)
        case ast.Assign(targets=targets):
            for target in targets:
                for node in ast.walk(target):
                    if isinstance(node, ast.Name):
                        yield node.id, None
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            yield name, Bound(value, scope)
        case ast.AugAssign(target=ast.Name(id=name)):
            yield name, None
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield statement.name, statement


def parsed(text: str | bytes) -> ast.Module:
    """Returns the syntax tree of a module; an empty one if the text is not Python."""
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def absolute(statement: ast.ImportFrom, package: str) -> str:
    """Returns the dotted path of the module that an import names."""
    if not statement.level:
        return statement.module or ""
    parts = package.split(".")
    kept = parts[: len(parts) - statement.level + 1]
    return ".".join([*kept, *([statement.module] if statement.module else [])])


def dotted(node: ast.expr, scope: Scope) -> str:
    """Returns the full path of a name or an attribute, "" for other expressions."""
    match node:
        case ast.Name(id=name):
            match scope.look_up(name):
                case Imported(path=path):
                    return path
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    return f"{scope.module.dotted}.{name}"
        case ast.Attribute(value=value, attr=attr):
            if base := dotted(value, scope):
                return f"{base}.{attr}"
    return ""


def evaluate(bound: Bound, depth: int = 0) -> Any:
    """Returns the value of an expression, or a Bound if it is known only at run time.

    Lists, tuples, sets and dicts may contain both. A returned Bound is the expression that
    makes the value; names that refer to it are followed.
    """
    node, scope = bound.node, bound.scope
    if depth > _DEEPEST:
        return bound

    def value(node: ast.expr) -> Any:
        return evaluate(Bound(node, scope), depth + 1)

    match node:
        case ast.Constant(value=constant):
            return constant
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            items = _items(elements, value)
            if items is None:
                return bound
            return items if isinstance(node, ast.List) else tuple(items)
        case ast.Set(elts=elements):
            items = _items(elements, value)
            return set(items) if items is not None and is_plain(items) else bound
        case ast.Dict(keys=keys, values=values) if None not in keys:
            plain_keys = [value(key) for key in keys if key is not None]
            if not is_plain(plain_keys):
                return bound
            return dict(zip(plain_keys, map(value, values), strict=True))
        case ast.JoinedStr(values=parts):
            texts = [_part(part, value) for part in parts]
            return "".join(texts) if None not in texts else bound  # type: ignore[arg-type]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            operands = [value(left), value(right)]
            if not is_plain(operands):
                return bound
            try:
                return _OPERATORS[type(op)](*operands)
            except (ArithmeticError, TypeError, ValueError):
                return bound
        case ast.Subscript(value=container, slice=index):
            both = value(container), value(index)
            try:
                return both[0][both[1]] if is_plain(both) else bound
            except (LookupError, TypeError):
                return bound
        case ast.ListComp(generators=[ast.comprehension(ifs=[], is_async=0) as each]):
            return _comprehended(bound, node.elt, each, depth)
        case ast.Name() | ast.Attribute():
            return _named(bound, depth)
        case ast.Call():
            return _returned(bound, depth)
    return bound


def is_plain(value: Any) -> bool:
    """Whether a value is completely known."""
    if isinstance(value, dict):
        return is_plain([*value, *value.values()])
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(is_plain, value))
    return not isinstance(value, Bound)


def arguments(
    call: Bound,
) -> tuple[list[Bound], dict[str, Bound]] | None:
    """Returns the arguments of a call, None if they are known only at run time."""
    assert isinstance(call.node, ast.Call)
    if any(isinstance(each, ast.Starred) for each in call.node.args):
        return None
    positional = [Bound(each, call.scope) for each in call.node.args]
    named: dict[str, Bound] = {}
    for keyword in call.node.keywords:
        if keyword.arg:
            named[keyword.arg] = Bound(keyword.value, call.scope)
            continue
        match followed(Bound(keyword.value, call.scope)):
            case Bound(node=ast.Dict(keys=keys, values=values), scope=scope):
                for key, each in zip(keys, values, strict=True):
                    if not isinstance(key, ast.Constant):
                        return None
                    named[str(key.value)] = Bound(each, scope)
            case _:
                return None
    return positional, named


def followed(bound: Bound) -> Bound:
    """Returns the expression to which a name is bound; calls are not followed."""
    for _ in range(_DEEPEST):
        if not isinstance(bound.node, ast.Name):
            break
        match bound.scope.look_up(bound.node.id):
            case Bound() as inner:
                bound = inner
            case _:
                break
    return bound


def called(call: Bound) -> str:
    """Returns the full path of the called object, "" if it is unknown."""
    assert isinstance(call.node, ast.Call)
    return dotted(call.node.func, call.scope)


def imports_in(bound: Bound) -> list[str]:
    """Returns the full paths of the imported objects that an expression uses."""
    paths: list[str] = []
    for node in ast.walk(bound.node):
        if isinstance(node, ast.Name):
            match bound.scope.look_up(node.id):
                case Imported(path=path):
                    paths.append(path)
                case Bound() as inner if inner.node is not bound.node:
                    paths += imports_in(inner)
    return paths


def definition_of(call: Bound) -> tuple[Any, Module] | None:
    """Returns the backend's definition of the called object, and its module."""
    path, _, name = called(call).rpartition(".")
    module = call.scope.module.at(path)
    return (module.look_up(name), module) if module else None


def function_of(call: Bound) -> tuple[FunctionDef, Module] | None:
    """Returns the backend's function that a call calls, and its module."""
    match definition_of(call):
        case (ast.FunctionDef() | ast.AsyncFunctionDef() as function, module):
            return function, module
    return None


def entered(call: Bound, function: FunctionDef, module: Module) -> Scope | None:
    """Returns the scope of the function's body during a call, None if it is unclear."""
    given = arguments(call)
    if given is None or function.args.vararg or function.args.kwarg:
        return None
    positional, named = given
    parameters = [*function.args.posonlyargs, *function.args.args]
    if len(positional) > len(parameters):
        return None
    names: dict[str, Any] = {}
    defaults = function.args.defaults
    for parameter, default in zip(
        parameters[len(parameters) - len(defaults) :], defaults, strict=True
    ):
        names[parameter.arg] = Bound(default, module.scope)
    for parameter, keyword_default in zip(
        function.args.kwonlyargs, function.args.kw_defaults, strict=True
    ):
        if keyword_default is not None:
            names[parameter.arg] = Bound(keyword_default, module.scope)
    for parameter, argument in zip(parameters, positional, strict=False):
        names[parameter.arg] = argument
    names.update(named)
    return Scope(module, names)


# ------------------------------------------------------------------------------ details


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yields the statements of a module, also those inside `if` and `try`."""
    for statement in body:
        yield statement
        match statement:
            case ast.If(body=body, orelse=orelse):
                yield from _top_level([*body, *orelse])
            case ast.Try(body=body, handlers=handlers):
                yield from _top_level(body)
                for handler in handlers:
                    yield from _top_level(handler.body)


def _items(
    elements: list[ast.expr], value: Callable[[ast.expr], Any]
) -> list[Any] | None:
    items: list[Any] = []
    for element in elements:
        if isinstance(element, ast.Starred):
            inner = value(element.value)
            if not isinstance(inner, list | tuple):
                return None
            items += inner
        else:
            items.append(value(element))
    return items


def _part(part: ast.expr, value: Callable[[ast.expr], Any]) -> str | None:
    """The text of a part of an f-string, None if it is unknown."""
    match part:
        case ast.Constant(value=str() as text):
            return text
        case ast.FormattedValue(value=inner, conversion=-1, format_spec=None):
            found = value(inner)
            return str(found) if isinstance(found, str | int) else None
    return None


def _comprehended(
    bound: Bound, element: ast.expr, each: ast.comprehension, depth: int
) -> Any:
    items = evaluate(Bound(each.iter, bound.scope), depth + 1)
    if not isinstance(items, list | tuple):
        return bound
    results = []
    for item in items:
        names = unpacked(each.target, item)
        if names is None:
            return bound
        scope = Scope(bound.scope.module, {**bound.scope.names, **names})
        results.append(evaluate(Bound(element, scope), depth + 1))
    return results


def unpacked(target: ast.expr, item: Any) -> dict[str, Any] | None:
    """Returns the names that the target of a loop binds for an item, None if unclear."""
    match target:
        case ast.Name(id=name):
            return {name: item if isinstance(item, Bound) else (item,)}
        case ast.Tuple(elts=targets):
            if not isinstance(item, list | tuple) or len(item) != len(targets):
                return None
            names: dict[str, Any] = {}
            for inner, part in zip(targets, item, strict=True):
                found = unpacked(inner, part)
                if found is None:
                    return None
                names |= found
            return names
    return None


def _named(bound: Bound, depth: int) -> Any:
    node, scope = bound.node, bound.scope
    if isinstance(node, ast.Name):
        match scope.look_up(node.id):
            case Bound() as inner:
                return evaluate(inner, depth + 1)
            case (value,):
                return value
    elif isinstance(node, ast.Attribute) and node.attr == "value":
        # A member of an enumeration.
        inner = evaluate(Bound(node.value, scope), depth + 1)
        if is_plain(inner):
            return inner
    return _at(dotted(node, scope), bound, depth)


def _at(path: str, bound: Bound, depth: int) -> Any:
    """The value of a full dotted path in the backend."""
    parts = path.split(".") if depth <= _DEEPEST else []
    for split in range(len(parts) - 1, 0, -1):
        if module := bound.scope.module.at(".".join(parts[:split])):
            return _member(bound, module, parts[split:], depth)
    return bound


def _member(bound: Bound, module: Module, names: list[str], depth: int) -> Any:
    """The value of a name in a module, or in a class of the module."""
    match module.look_up(names[0]), names[1:]:
        case Bound() as inner, []:
            return evaluate(inner, depth + 1)
        case Imported(path=path), []:
            return _at(path, bound, depth + 1)
        case ast.ClassDef(body=body), [attribute]:
            for statement in body:
                for name, binding in bindings_of(statement, module.scope):
                    if name == attribute and isinstance(binding, Bound):
                        return evaluate(binding, depth + 1)
    return bound


def _returned(bound: Bound, depth: int) -> Any:
    """The result of a backend's function that only assigns names and returns a value."""
    found = function_of(bound)
    if found is None or isinstance(found[0], ast.AsyncFunctionDef):
        return bound
    scope = entered(bound, *found)
    if scope is None or found[0].decorator_list:
        return bound
    for statement in found[0].body:
        match statement:
            case ast.Expr(value=ast.Constant()):
                continue
            case ast.Return(value=ast.expr() as value):
                return evaluate(Bound(value, scope), depth + 1)
            case ast.Assign() | ast.AnnAssign() | ast.Import() | ast.ImportFrom():
                for name, binding in bindings_of(statement, scope):
                    scope.names[name] = binding
            case _:
                return bound
    return bound
