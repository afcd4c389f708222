"""Finds in a service's files where its dashboard is served."""

import ast
from collections.abc import Iterator
from pathlib import Path


def includes_dashboard(tree: ast.AST, file: Path, workers: Path, package: str) -> bool:
    """Whether a module passes the router of a service's dashboard to a call.

    Args:
        file: The path of the module.
        workers: The folder of the service's workers.
        package: The import path of the service's folder.
    """
    names = {*_names_of(tree, file, workers, package)}
    return bool(names) and any(
        ast.unparse(argument).partition(".router")[0] in names
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        for argument in (*call.args, *(each.value for each in call.keywords))
    )


def passes_dashboard(tree: ast.AST) -> bool:
    """Whether __main__.py passes the dashboard to main()."""
    return any(
        keyword.arg == "dashboard"
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        for keyword in call.keywords
    )


def _names_of(tree: ast.AST, file: Path, workers: Path, package: str) -> Iterator[str]:
    """The names that refer to workers/dashboard.py or to its router."""
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=module, names=names, level=level):
                above = file.parents[level - 1] if level else None
                for alias in names:
                    path = f"{module}." if module else ""
                    if any(
                        _is_dashboard(imported, above, workers, package)
                        for imported in (path[:-1], path + alias.name)
                    ):
                        yield alias.asname or alias.name
            case ast.Import(names=names):
                for alias in names:
                    if _is_dashboard(alias.name, None, workers, package):
                        yield alias.asname or alias.name


def _is_dashboard(path: str, above: Path | None, workers: Path, package: str) -> bool:
    """Whether a dotted path refers to workers/dashboard.py.

    Args:
        above: The folder where a relative import starts; None for an absolute import,
            which may start in any folder above the workers.
    """
    if above:
        return above.joinpath(*path.split(".")) == workers / "dashboard"
    whole = f".{package}.workers.dashboard"
    return path.endswith("workers.dashboard") and whole.endswith(f".{path}")
