"""Flat services: a folder whose modules import each other by their bare names."""

from __future__ import annotations

import os

from .imports import is_rendered, package_for
from .service import Service, found_in, imports_in
from .source import read
from .texts import Stop


def keep_flat(data: bytes, service: Service) -> None:
    """Deletes a rendered __init__.py from the folder of a flat service.

    With it, pytest and `fastapi run` would import the team's modules under other names.
    """
    path = service.folder / "__init__.py"
    if not (path.is_file() and is_rendered(path, service) and has_bare_import(service)):
        return
    rendered = path.read_bytes()
    path.unlink()  # First, because the form of the import depends on it.
    try:
        is_flat = package_for(read(data)[0], service) == "workers"
    except Stop:
        is_flat = False
    if not is_flat:
        path.write_bytes(rendered)


def has_bare_import(service: Service) -> bool:
    """Whether a file in the folder or its tests imports a module of it by its bare name."""
    folder = service.folder
    return any(
        not module.startswith(".")
        and found_in(folder / "main.py", module, names)[0] == folder
        for path in (*folder.glob("*.py"), *folder.glob("tests/*.py"))
        if path.is_file() and os.access(path, os.R_OK)
        for module, names in imports_in(path.read_bytes())
    )
