"""The cases of tests/wiring, each with what must become of it, and the program that wires."""

import ast
import contextlib
import io
import re
import sys
import tomllib
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from chancy_workers.source import task

FOLDER = Path(__file__).parent / "wiring"
# Exit statuses of the program, run by hand.
WIRED, ALREADY, LEFT, NOTHING = 0, 3, 4, 5
STATUS = {"yield": WIRED, "router": WIRED, "already": ALREADY, "left": LEFT}
FAILURE = "the stub does not start"
STUB = """\
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def initialize_workers() -> AsyncIterator[None]:
    record("workers started")
    yield
    record("workers stopped")
"""
FAILING_STUB = STUB.replace(
    'record("workers started")', f'raise RuntimeError("{FAILURE}")'
)


program = task("wire_lifespan")


@dataclass(frozen=True)
class Run:
    """What one run of the program ended with, and what it said."""

    status: int
    text: str


def run_program(*argv: str | Path) -> Run:
    """Runs the program in this process as a command line would."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            status = program.main([str(each) for each in argv])
        except SystemExit as exit:
            status = exit.code
    return Run(status, said.getvalue())


@dataclass(frozen=True, eq=False)
class Case:
    """A file as a team writes it, and what must become of it.

    They stand in tests/wiring, in one file for each outcome: a template's repository is checked
    out for every render, and hundreds of small files are what that costs.

    Args:
        shape: What the file is.
        outcome: `yield`, `router`, `already` or `left`.
        because: What the message says when the file is left alone.
        source: Its bytes, in the entry a string and, where that is not UTF-8, its `encoding`.
        at: Where the file stands in the backend.
        workers: The service's folder, the one with workers/.
        service: The service's name.
        app: --app
        package: --package
        root: The folder that is on sys.path.
        fastapi: The version that uv.lock pins.
        imports: The import of the service's that the wired file has.
        library: The import of the library's router that it has, where it has one.
        name: The app's name in the module (app), or of what has it: server.app.
        factory: The function that returns the app.
        script: Whether running the file runs uvicorn.
        from_3_12: The outcome where Python 3.12 or later runs the program.
        beside: Files next to it, by their path from the backend's root.
    """

    case: str
    shape: str
    outcome: str
    source: bytes
    because: str = ""
    at: str = "app/billing/main.py"
    workers: str = "app/billing"
    service: str = "billing"
    app: str = ""
    package: str = ""
    root: str = "."
    fastapi: str = ""
    imports: str = ""
    library: str = "from chancy_runtime.web import workers_router"
    name: str = ""
    factory: str = ""
    script: bool = False
    from_3_12: str = ""
    beside: dict[str, str] = field(default_factory=dict)

    @property
    def expected(self) -> str:
        """The outcome under the Python that runs the tests."""
        return self.from_3_12 if self.from_3_12 and newer_python() else self.outcome

    @property
    def module(self) -> str:
        """The import path of the file, seen from `root`."""
        path = PurePosixPath(self.at).relative_to(self.root).with_suffix("")
        return ".".join(path.parts)


def newer_python() -> bool:
    return sys.version_info >= (3, 12)


def read_cases() -> list[Case]:
    found = []
    for outcome in STATUS:
        entries = tomllib.loads((FOLDER / f"{outcome}.toml").read_text("utf-8"))
        for name, entry in entries.items():
            encoding = entry.pop("encoding", "utf-8")
            source = entry.pop("source").encode(encoding)
            found.append(Case(case=name, outcome=outcome, source=source, **entry))
    return found


CASES = read_cases()
WIRED_CASES = [case for case in CASES if case.expected in ("yield", "router")]


class Backend:
    """A backend's folder with the file of one case in it."""

    def __init__(self, folder: Path, case: Case, stub: str = STUB) -> None:
        # Below folders of its own: a look that goes up does not meet those of other tests.
        self.folder = folder / "home" / "team" / "backend"
        self.case = case
        self.file = self.folder / case.at
        self._write(case.at, case.source)
        self._write(f"{case.workers}/workers/chancy_initialization.py", stub.encode())
        for name, text in case.beside.items():
            self._write(name, text.encode())
        if case.fastapi:
            self._write("uv.lock", lock_file(case.fastapi).encode())
        for package in self._packages():
            (package / "__init__.py").touch()

    def _write(self, name: str, data: bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def _packages(self) -> Iterator[Path]:
        """The folders below `root` on the way to the file and to the workers."""
        root = self.folder / self.case.root
        workers = self.folder / self.case.workers / "workers"
        for leaf in (self.file.parent, workers):
            for folder in (leaf, *leaf.parents):
                if folder == root:
                    break
                yield folder

    def wire(self, *options: str) -> Run:
        argv = [str(self.file), "--service", self.case.service]
        if self.case.app:
            argv += ["--app", self.case.app]
        if self.case.package:
            argv += ["--package", self.case.package]
        return run_program(*argv, *options)

    @property
    def bytes(self) -> bytes:
        return self.file.read_bytes()

    def boot_request(self) -> dict[str, Any]:
        """What tests/wiring_boots.py is asked for."""
        return {
            "folder": str((self.folder / self.case.root).resolve()),
            "module": self.case.module,
            "name": self.case.name,
            "factory": self.case.factory,
            "script": self.case.script,
        }


def lock_file(version: str) -> str:
    """A uv.lock that pins FastAPI."""
    return (
        "version = 1\n\n[[package]]\n"
        f'name = "fastapi"\nversion = "{version}"\n'
        'source = { registry = "https://index.example.invalid/simple" }\n'
    )


def lines_of(source: bytes) -> list[bytes]:
    """The lines as Python counts them, with their ends: LF, CRLF or CR."""
    return re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z", source)


def difference(old: bytes, new: bytes) -> tuple[list[bytes], int]:
    """The lines that were added, and the number of those that moved to the right.

    Raises:
        AssertionError: A line is not there any more or not where it was, or what is new
            has line ends or an indentation that the file had not.
    """
    assert old.startswith(BOM_UTF8) == new.startswith(BOM_UTF8)
    old, new = old.removeprefix(BOM_UTF8), new.removeprefix(BOM_UTF8)
    rest, moved, added = lines_of(old), 0, []
    for line in lines_of(new):
        if rest and line.rstrip(b"\r\n") == rest[0].rstrip(b"\r\n"):
            rest.pop(0)
        elif rest and line.strip() and line.strip() == rest[0].strip():
            before, text = split_indentation(rest.pop(0))
            after, _ = split_indentation(line)
            assert line.endswith(text) and after.startswith(before)
            assert set(after) <= set(b"".join(indentations(old)))
            moved += 1
        else:
            added.append(line)
    assert not rest, f"not there any more, or not in order: {rest[0]!r}"
    assert line_ends(new) <= (line_ends(old) or {b"\n"})
    return added, moved


def split_indentation(line: bytes) -> tuple[bytes, bytes]:
    text = line.lstrip(b" \t\f")
    return line[: len(line) - len(text)], text


def indentations(source: bytes) -> Iterator[bytes]:
    return (split_indentation(line)[0] for line in lines_of(source))


def line_ends(source: bytes) -> set[bytes]:
    return set(re.findall(rb"\r\n|\r|\n", source))


@contextlib.contextmanager
def deep_trees() -> Iterator[None]:
    """Lets the tests walk trees as deep as Python itself reads."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


@deep_trees()
def tree(source: bytes) -> str:
    return ast.dump(ast.parse(source))


@deep_trees()
def tree_without_wiring(old: bytes, new: bytes) -> str:
    """The tree of the new file without the imports that the old has not, and their uses."""
    before, after = ast.parse(old), ast.parse(new)
    had = {*imports_of(before, SERVICE), *imports_of(before, LIBRARY)}
    services, routers = (
        [node for dump, node in imports_of(after, module).items() if dump not in had]
        for module in (SERVICE, LIBRARY)
    )
    assert len(services) <= 1 and len(routers) <= 1, "one import of each is enough"
    names = bound_by(services) or unused_workers(before)
    return ast.dump(Unwired(names, [*services, *routers]).visit(after))


# What an import of any service's workers, and of the library's router, names.
SERVICE, LIBRARY = r".*\.chancy_\w+", r"\.chancy_runtime\.web"


def imports_of(module: ast.Module, of: str) -> dict[str, ast.ImportFrom]:
    """The imports of what a pattern matches, by their dumps."""
    return {
        ast.dump(node): node
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom) and re.fullmatch(of, f".{node.module}")
    }


def bound_by(imports: Iterable[ast.ImportFrom]) -> set[str]:
    return {alias.asname or alias.name for node in imports for alias in node.names}


def unused_workers(module: ast.Module) -> set[str]:
    """The names of workers that are imported and then not used."""
    used = {node.id for node in ast.walk(module) if isinstance(node, ast.Name)}
    return bound_by(imports_of(module, SERVICE).values()) - used


class Unwired(ast.NodeTransformer):
    """Takes the wiring out of a tree."""

    def __init__(self, names: set[str], imports: list[ast.ImportFrom]) -> None:
        self.names = names
        self.imports = imports

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        return None if node in self.imports else node

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        match node.value:
            case ast.Call(
                ast.Attribute(attr="include_router"),
                [ast.Call(ast.Name(), [ast.Name(id=name)])],
            ):
                return None if name in self.names else node
        return self.generic_visit(node)

    def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AST | list[ast.stmt]:
        match node.items:
            case [ast.withitem(ast.Call(ast.Name(id=name), []))] if name in self.names:
                return node.body
        return self.generic_visit(node)
