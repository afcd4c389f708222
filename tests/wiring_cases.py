"""The cases of tests/wiring with their expected outcomes, and the program that wires."""

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
# Exit statuses of the program when run by hand.
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
    """The exit status of a run of the program, and its output."""

    status: int
    text: str


def run_program(*argv: str | Path) -> Run:
    """Runs the program in this process with command line arguments."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        try:
            status = program.main([str(each) for each in argv])
        except SystemExit as exit:
            status = exit.code
    return Run(status, output.getvalue())


@dataclass(frozen=True, eq=False)
class Case:
    """A typical file of a team, and its expected outcome.

    tests/wiring has one file of cases for each outcome. Hundreds of small files would slow
    every render down, because each render checks the template's repository out.

    Args:
        shape: A description of the file.
        outcome: `yield`, `router`, `already` or `left`.
        because: Words of the message when the file is left alone.
        source: Its bytes; the entry has a string and, if it is not UTF-8, an `encoding`.
        at: The file's path in the backend.
        workers: The service's folder, which has workers/.
        service: The service's name.
        app: --app
        package: --package
        root: The folder on sys.path.
        fastapi: The version that uv.lock pins.
        imports: The expected import of the service's workers in the wired file.
        library: The expected import of the library's router, if the file includes one.
        name: The app's dotted name in the module, such as app or server.app.
        factory: The function that returns the app.
        script: Whether running the file runs uvicorn.
        from_3_12: The outcome if Python 3.12 or later runs the program.
        beside: Other files, by their path from the backend's root.
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
        """The import path of the file from `root`."""
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
        # In its own folders, so that a search upwards does not find files of other tests.
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
        """The folders between `root` and the file, and between `root` and the workers."""
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
        """A request for tests/wiring_boots.py."""
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
    """The lines, as Python counts them, with their endings: LF, CRLF or CR."""
    return re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z", source)


def difference(old: bytes, new: bytes) -> tuple[list[bytes], int]:
    """The added lines, and the number of lines that were indented further.

    Raises:
        AssertionError: A line is missing or in another place, or a new line has a line
            ending or an indentation that the old file does not have.
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
    assert not rest, f"missing, or in another place: {rest[0]!r}"
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
    """Lets the tests walk trees that are as deep as Python can parse."""
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
    """The tree of the new file without imports that the old file lacks, and their uses."""
    before, after = ast.parse(old), ast.parse(new)
    had = {*imports_of(before, SERVICE), *imports_of(before, LIBRARY)}
    services, routers = (
        [node for dump, node in imports_of(after, module).items() if dump not in had]
        for module in (SERVICE, LIBRARY)
    )
    assert len(services) <= 1 and len(routers) <= 1, "one import of each is enough"
    names = bound_by(services) or unused_workers(before)
    return ast.dump(Unwired(names, [*services, *routers]).visit(after))


# The modules of any service's workers, and the module of the library's router.
SERVICE, LIBRARY = r".*\.chancy_\w+", r"\.chancy_runtime\.web"


def imports_of(module: ast.Module, of: str) -> dict[str, ast.ImportFrom]:
    """The imports from modules that match a pattern, by their dumps."""
    return {
        ast.dump(node): node
        for node in ast.walk(module)
        if isinstance(node, ast.ImportFrom) and re.fullmatch(of, f".{node.module}")
    }


def bound_by(imports: Iterable[ast.ImportFrom]) -> set[str]:
    return {alias.asname or alias.name for node in imports for alias in node.names}


def unused_workers(module: ast.Module) -> set[str]:
    """The names that are imported from workers and not used."""
    used = {node.id for node in ast.walk(module) if isinstance(node, ast.Name)}
    return bound_by(imports_of(module, SERVICE).values()) - used


class Unwired(ast.NodeTransformer):
    """Removes the wiring from a tree."""

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
