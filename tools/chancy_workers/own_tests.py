"""Finds a service's own tests that start its workers by entering the lifespan of its app."""

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

from .answers import Project
from .python_files import parsed
from .repository import files_with

# Names that enter an app's lifespan: classes of Starlette and asgi-lifespan, and the app's own.
_ENTERING = ("TestClient", "LifespanManager", "lifespan_context", "lifespan")
# WORKERS_MODE=off in the syntax of any file, as a regular expression for git.
_SWITCH = "WORKERS_MODE[^[:alnum:]_]{1,9}off"
_TEST = re.compile(r"(.*/)?(conftest|test_[^/]*|[^/]*tests?)\.py|(.*/)?tests?/.*\.py")


def that_start_workers(project: Project) -> Iterator[tuple[Path, int]]:
    """Yields the files of such tests, each with its first such line.

    Yields nothing if a file in the repository sets WORKERS_MODE to off.
    """
    top = project.top
    workers = (project.service / "workers").relative_to(top)
    others = f":(exclude,literal){workers.as_posix()}"
    if files_with(_SWITCH, top, ".", others, ":(exclude)*.md"):
        return
    main = "/" + Path(os.path.relpath(project.main, top)).with_suffix("").as_posix()
    for name in files_with("|".join(_ENTERING), top, "*.py", others):
        path = top / name
        lines = _lines_that_enter(path) if _TEST.fullmatch(name) else []
        if lines and any(
            _imports(each, main, top) for each in _with_fixtures(path, top)
        ):
            yield path, min(lines)


def conftest_of(path: Path, top: Path) -> Path:
    """The conftest.py that is nearest to a test, or the path for a new one beside it."""
    beside = path.with_name("conftest.py")
    return next(
        (each for each in _with_fixtures(path, top) if each.name == beside.name), beside
    )


def _with_fixtures(path: Path, top: Path) -> Iterator[Path]:
    """A test, then each conftest.py with fixtures for it, the nearest first."""
    yield path
    for folder in path.parents:
        conftest = folder / "conftest.py"
        if conftest != path and conftest.is_file():
            yield conftest
        if folder == top:
            break


def _parsed(path: Path) -> ast.AST:
    """The syntax tree of a file; an empty one if it is not Python."""
    try:
        return parsed(path.read_bytes())
    except OSError:
        return parsed("")


def _lines_that_enter(path: Path) -> list[int]:
    """The lines in which a test enters the lifespan of an app."""
    tree = _parsed(path)
    clients: dict[str, str] = {}
    entered: list[ast.expr] = []
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call() as call):
                clients[name] = _called(call)
            case ast.With(items=items) | ast.AsyncWith(items=items):
                entered += [item.context_expr for item in items]
            case ast.Call(
                func=ast.Attribute(attr="enter_context" | "enter_async_context"),
                args=arguments,
            ):
                entered += arguments
    return [
        each.lineno
        for each in entered
        if (clients.get(each.id) if isinstance(each, ast.Name) else _called(each))
        in _ENTERING
    ]


def _called(node: ast.expr) -> str:
    """The last part of the name that an expression calls."""
    match node:
        case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
            return name
    return ""


def _imports(path: Path, module: str, top: Path) -> bool:
    """Whether a file imports a module; the import path may start at any folder above it.

    Args:
        module: Its path from the repository's top folder, such as /app/billing/main.
    """
    folders = path.relative_to(top).parent.parts
    for node in ast.walk(_parsed(path)):
        match node:
            case ast.Import(names=aliases):
                level, found = 0, [each.name for each in aliases]
            case ast.ImportFrom(module=base, names=aliases, level=level):
                found = [base or "", *(f"{base or ''}.{each.name}" for each in aliases)]
            case _:
                continue
        paths = ["/" + name.strip(".").replace(".", "/") for name in found]
        above = "".join(f"/{each}" for each in folders[: len(folders) - level + 1])
        if any(
            above + each == module if level else module.endswith(each) for each in paths
        ):
            return True
    return False
