"""Moves expressions of a hand-written file into a rendered one, with their dependencies."""

import ast
import builtins
import copy
from typing import Any

from .house_pattern import House, is_chancy
from .python_files import (
    Bound,
    Imported,
    Module,
    Scope,
    absolute,
    bindings_of,
    evaluate,
    followed,
    is_plain,
)


class NotCarriedOver(Exception):
    """Why an expression cannot be used in the rendered file."""


class Carried:
    """Carries expressions over, and collects the imports and statements that they need.

    Args:
        rendered: The rendered file, whose own names keep their meaning.
        house: The hand-written service.
    """

    def __init__(self, rendered: ast.Module, house: House) -> None:
        self._house = house
        module = house.module
        scope = module.scope
        self._rendered: dict[str, Any] = {}
        for statement in rendered.body:
            self._rendered.update(bindings_of(statement, scope))
        self.imports: dict[str, None] = {}
        self._statements: dict[ast.stmt, None] = {}

    def statements(self) -> list[str]:
        """The needed statements of the hand-written file, in its order."""
        module = self._house.module
        found = sorted(self._statements, key=lambda each: each.lineno)
        return [module.segment(each).rstrip() for each in found]

    def value(self, bound: Bound) -> str:
        """The text of an expression's value, or of the expression if the value is unknown."""
        value = evaluate(bound)
        if isinstance(value, set | frozenset) and is_plain(value):
            items = ", ".join(map(repr, sorted(value, key=repr)))
            return f"{{{items}}}" if value else "set()"
        return repr(value) if is_plain(value) else self.text(followed(bound))

    def text(self, bound: Bound) -> str:
        """The text of an expression in the rendered file."""
        return ast.unparse(self.node(bound))

    def node(self, bound: Bound) -> ast.expr:
        node: ast.expr = _Inliner(self, bound).visit(copy.deepcopy(bound.node))
        return node

    def keep(self, name: str) -> None:
        """Keeps a name of the hand-written file that other files import."""
        binding = self._house.module.look_up(name)
        if name in self._rendered:
            if isinstance(binding, ast.stmt) and name != "create_chancy":
                raise NotCarriedOver(
                    "the rendered file has another one: give yours another name"
                )
            return
        if binding is None or isinstance(binding, Imported):
            raise NotCarriedOver("it is defined elsewhere: import it from there")
        self._statement(name, self._house.module)

    def keep_effect(self, statement: ast.stmt) -> None:
        """Keeps a statement of the hand-written file that has an effect on import."""
        module = self._house.module
        match statement:
            case ast.Expr(value=ast.Constant()):
                return
            case ast.Import() | ast.ImportFrom():
                if "noqa" in (line := module.line(statement.end_lineno or 0)):
                    self.imports[line] = None
            case ast.Expr():
                self._take(statement)
            case ast.If(test=test) if ast.unparse(test).endswith("TYPE_CHECKING"):
                return
            case (
                ast.Assign()
                | ast.AnnAssign()
                | ast.FunctionDef()
                | ast.AsyncFunctionDef()
                | ast.ClassDef()
            ):
                return
            case _:
                raise NotCarriedOver(
                    "it runs when the file is imported, and the rendered file has no place "
                    "for it (main.py is a good place)"
                )

    def name(self, name: str, scope: Scope) -> ast.expr | str:
        """The replacement of a name in the rendered file: a name or an expression."""
        module = scope.module
        match scope.look_up(name):
            case (value,):
                if not is_plain(value):
                    raise NotCarriedOver(
                        f"the value of {name} is known only at run time"
                    )
                return ast.parse(repr(value), mode="eval").body
            case Bound() as bound if name in scope.names:
                if is_chancy(evaluate(bound), "Chancy"):
                    raise NotCarriedOver(
                        f"it needs {name}, but the rendered file makes its Chancy later"
                    )
                return self.node(bound)
            case Imported() as imported:
                return self._imported(name, imported, module)
            case None:
                if name in module_names(module) or not hasattr(builtins, name):
                    if name in ("__name__", "__package__", "__file__"):
                        return name
                    raise NotCarriedOver(
                        f"{name} cannot be determined: it is bound more than once, or not at all"
                    )
                return name
            case _:
                return self._statement(name, module)

    def _imported(self, name: str, imported: Imported, module: Module) -> str:
        for rendered, present in self._rendered.items():
            if isinstance(present, Imported) and present.path in (
                imported.path,
                _of_the_library(imported.path),
            ):
                return rendered
        if name in self._rendered:
            raise NotCarriedOver(
                f"the rendered file has another {name}: give yours another name"
            )
        self.imports[self._import_line(name, imported, module)] = None
        return name

    def _import_line(self, name: str, imported: Imported, module: Module) -> str:
        """An absolute import, because the template sorts jobs among the relative imports."""
        match imported.statement:
            case ast.ImportFrom() as statement:
                base = absolute(statement, module.package)
                original = imported.path.rpartition(".")[2]
                alias = f" as {name}" if name != original else ""
                return f"from {base} import {original}{alias}"
            case ast.Import(names=aliases):
                for each in aliases:
                    if each.asname == name:
                        return f"import {each.name} as {name}"
                    if not each.asname and each.name.partition(".")[0] == name:
                        return f"import {each.name}"
        raise AssertionError(name)

    def _statement(self, name: str, module: Module) -> str:
        if module is not self._house.module:
            imported = ast.ImportFrom(module.dotted, [ast.alias(name)], 0)
            return self._imported(
                name, Imported(f"{module.dotted}.{name}", imported), module
            )
        if name in self._rendered:
            raise NotCarriedOver(
                f"the rendered file has its own {name}: give yours another name"
            )
        binding = module.look_up(name)
        if isinstance(binding, Bound) and is_chancy(evaluate(binding), "Chancy"):
            raise NotCarriedOver(
                f"{name} is the Chancy, but the rendered file makes a new one at each start: "
                "call get_chancy() instead"
            )
        statement = module.statement_of(name)
        if statement is None:
            raise NotCarriedOver(f"{name} is bound more than once")
        self._take(statement)
        return name

    def _take(self, statement: ast.stmt) -> None:
        module = self._house.module
        if statement not in self._statements:
            self._statements[statement] = None
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and node.id in module_names(module):
                    found = module.look_up(node.id)
                    if self.name(node.id, module.scope) != node.id and isinstance(
                        found, Imported
                    ):
                        # The rendered file imports it under another name.
                        self.imports[self._import_line(node.id, found, module)] = None


def _of_the_library(path: str) -> str:
    """The path of the library's class that replaces a class of Chancy."""
    return (
        f"chancy_runtime.{path.rpartition('.')[2]}"
        if path.startswith("chancy.")
        else path
    )


class _Inliner(ast.NodeTransformer):
    """Replaces the local names of a function with their values."""

    def __init__(self, carry: Carried, bound: Bound) -> None:
        self._carry = carry
        self._scope = bound.scope
        self._inner = {
            node.id if isinstance(node, ast.Name) else node.arg
            for node in ast.walk(bound.node)
            if (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
            or isinstance(node, ast.arg)
        }

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        value = evaluate(Bound(node, self._scope))
        return (
            ast.Constant(value) if isinstance(value, str) else self.generic_visit(node)
        )

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in self._inner:
            return node
        found = self._carry.name(node.id, self._scope)
        return ast.Name(found, node.ctx) if isinstance(found, str) else found


def module_names(module: Module) -> set[str]:
    """Returns the names that a module binds at its top level."""
    return {
        name
        for statement in module.tree.body
        for name, _ in bindings_of(statement, module.scope)
    }
