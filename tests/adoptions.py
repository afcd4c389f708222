"""Backends with hand-written workers, and their adoption."""

import shutil
from pathlib import Path
from typing import Any

from .support import (
    PROGRAM,
    commit,
    run,
)

HOUSES = Path(__file__).parent / "house"
BILLING = Path("app", "billing")


def settle(name: str, root: Path) -> Path:
    """Makes a backend of a house in a repository; returns the service's folder."""
    for part in ("shared", name):
        shutil.copytree(HOUSES / part, root, dirs_exist_ok=True)
    (root / "pyproject.toml").touch()
    (root / ".gitignore").write_text("*.log\n__pycache__/\n")
    commit(root)
    return root / BILLING


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not {".git", "__pycache__"} & set(path.parts)
    }


def adopt(root: Path, template: Path, *options: str, check: bool = True) -> Any:
    return run(
        *(PROGRAM, "adopt", BILLING, f"--template={template}"),
        *options,
        cwd=root,
        check=check,
    )
