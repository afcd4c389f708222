"""Finds the files of a backend that use the two modules that adoption replaces."""

import ast
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .house_pattern import ENTRY, INITIALIZATION, INSTANCE
from .python_files import absolute


@dataclass
class Users:
    """The names that other files import from the two modules, and who enters the workers."""

    names: dict[str, set[str]] = field(
        default_factory=lambda: {INITIALIZATION: set(), INSTANCE: set()}
    )
    entering: list[Path] = field(default_factory=list)

    def main(self, service: Path) -> str:
        """Returns the file with the app, in the form of the answer `main`."""
        outside = [
            path
            for path in self.entering
            if service / "workers" not in path.parents and "tests" not in path.parts
        ]
        if len(outside) != 1:
            return "main.py"
        return Path(os.path.relpath(outside[0], service)).as_posix()


def users_of(root: Path, package: str, files: Iterable[str]) -> Users:
    """Searches the Python files of a backend.

    Args:
        root: The folder where import paths start.
        package: The import path of the service's folder.
        files: Paths from `root`.
    """
    targets = {f"{package}.workers.{name}": name for name in (INITIALIZATION, INSTANCE)}
    users = Users()
    for name in files:
        path = root / name
        content = path.read_bytes() if path.is_file() else b""
        own = ".".join(Path(name).with_suffix("").parts)
        # Imports between the two modules do not count, because both are replaced.
        if own in targets or not any(each.encode() in content for each in users.names):
            continue
        try:
            tree = ast.parse(content)
        except (SyntaxError, ValueError):
            continue
        for target, used in _uses(tree, own.rpartition(".")[0]):
            if module := targets.get(target):
                users.names[module] |= used
                if module == INITIALIZATION and ENTRY in used:
                    users.entering.append(path)
    return users


def _uses(tree: ast.Module, package: str) -> list[tuple[str, set[str]]]:
    """The modules that a file imports, each with the names that the file uses."""
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(names=aliases):
                module = absolute(node, package)
                for alias in aliases:
                    used = _attributes(tree, alias.asname or alias.name)
                    found.append((module, {alias.name}))
                    found.append((f"{module}.{alias.name}", used))
            case ast.Import(names=aliases):
                for alias in aliases:
                    used = _attributes(tree, alias.asname or alias.name)
                    found.append((alias.name, used))
    return found


def _attributes(tree: ast.Module, name: str) -> set[str]:
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == name
    }
