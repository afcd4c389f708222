"""The recipes of docs/recipes, applied to a backend as a reader applies them."""

import ast
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from harness.recorder import EXAMPLE

PAGES = Path(__file__).parents[3] / "docs/recipes"
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_FILE = re.compile(r"`([\w/]+\.py)`")
_QUIET = '''"""Logging and Sentry are left to the tests."""


def configure_logging() -> None:
    """Changes nothing."""


def configure_sentry() -> None:
    """Changes nothing."""
'''


@dataclass(frozen=True)
class Block:
    """A block of code on a page.

    Args:
        language: "python" or "sql".
        file: The file that a Python block belongs to, relative to the backend's root.
    """

    language: str
    code: str
    file: str = ""


def blocks(page: str) -> list[Block]:
    """Returns the blocks of a page, in their order.

    Raises:
        AssertionError: A block is in another language, or no file is named above it.
    """
    found = []
    text = (PAGES / page).read_text()
    for block in _BLOCK.finditer(text):
        language, code = block.groups()
        # The paragraph above names the file.
        files = _FILE.findall(text[: block.start()].rstrip().rpartition("\n\n")[2])
        assert language in ("python", "sql"), f"{page}: {code}"
        assert files or language == "sql", f"{page} names no file for: {code}"
        found.append(Block(language, code, files[-1] if files else ""))
    return found


def make_backend(folder: Path) -> None:
    """Makes the backend that the pages start from."""
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "app/observability.py").write_text(_QUIET)


def apply(page: str, folder: Path) -> str:
    """Adds the code of a page to a backend; returns the SQL of the page."""
    sql = ""
    for block in blocks(page):
        if block.language == "sql":
            sql += block.code
        else:
            _add(folder / block.file, block.code)
    return sql


def _add(file: Path, code: str) -> None:
    """Writes a new file, or adds a block to an existing file.

    Imports go to the top; a definition replaces the one that has the same name.
    """
    if not file.exists():
        for missing in (file.parent, *file.parent.parents):
            if missing.exists():
                break
            missing.mkdir(parents=True)
            (missing / "__init__.py").touch()
        file.write_text(code)
        return
    text = file.read_text()
    for node in ast.parse(code).body:
        text = _merge(text, node, _source(code, node))
    file.write_text(text)


def _merge(text: str, node: ast.stmt, source: str) -> str:
    body = ast.parse(text).body
    if isinstance(node, ast.Import | ast.ImportFrom):
        last = [each for each in body if isinstance(each, type(node))][-1]
        return _replace(text, last, f"{_source(text, last)}\n{source}")
    names = _names(node)
    for each in body:
        if names & _names(each):
            return _replace(text, each, source)
    return f"{text}\n\n{source}\n"


def _names(node: ast.stmt) -> set[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return {node.name}
        case ast.Assign(targets=targets):
            return {each.id for each in targets if isinstance(each, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
    return set()


def _lines(node: ast.stmt) -> tuple[int, int]:
    """The first and the last line of a statement, decorators included."""
    first = min(
        [node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))]
    )
    assert node.end_lineno
    return first - 1, node.end_lineno


def _source(text: str, node: ast.stmt) -> str:
    first, last = _lines(node)
    return "\n".join(text.splitlines()[first:last])


def _replace(text: str, node: ast.stmt, source: str) -> str:
    first, last = _lines(node)
    lines = text.splitlines()
    return "\n".join([*lines[:first], source, *lines[last:]]) + "\n"
