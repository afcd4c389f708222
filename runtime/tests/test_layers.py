"""A layer of the library imports downwards only, and one module has Chancy's private names."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "runtime" / "src" / "chancy_runtime"
# Of Python itself, and of psycopg's own pool.
HARMLESS = {"_current_frames", "_exit"}


def test_imports_go_one_way() -> None:
    program = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run(
        [program, "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )

    assert result.returncode == 0, result.stdout


def modules() -> list[Path]:
    return [each for each in SOURCE.rglob("*.py") if each.name != "compat.py"]


def defined_names() -> set[str]:
    """The names that the library itself defines or assigns."""
    names = set(HARMLESS)
    for module in modules():
        for node in ast.walk(ast.parse(module.read_text())):
            match node:
                case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                    names.add(node.name)
                case ast.Attribute(attr=name, ctx=ast.Store()):
                    names.add(name)
                case ast.Name(id=name, ctx=ast.Store()):
                    names.add(name)
    return names


@pytest.mark.parametrize(
    "module", modules(), ids=lambda path: path.relative_to(SOURCE).as_posix()
)
def test_only_compat_has_private_names_of_others(module: Path) -> None:
    own = defined_names()
    foreign = {
        node.attr
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.startswith("__")
        and node.attr not in own
    }

    assert foreign == set(), "add them to compat.py"


def test_compat_has_them_all() -> None:
    """The check above can fail: without an own definition, compat.py has many."""
    text = (SOURCE / "compat.py").read_text()
    private = {
        node.attr
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and node.attr.startswith("_")
    }

    assert {"_maintain_heartbeat", "_drain", "_outgoing_lock"} <= private - (
        defined_names()
    )
