"""Finds a service's other apps, which do not start its workers."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from .app import find_apps, mounted_on
from .service import Service, reached_modules, wired_elsewhere
from .source import read
from .texts import Stop


def other_apps(service: Service) -> Iterator[tuple[Path, int]]:
    """Files in a service's folder with an app that starts no workers, and the app's line.

    Modules that the file with the wired app imports belong to that app.
    """
    parts = {service.file}
    try:
        source, _ = read(service.file.read_bytes())
        parts |= {path for path, _ in reached_modules(source, service.file)}
    except (OSError, Stop):
        pass
    for path in sorted(python_files(service.folder)):
        if path not in parts and (line := app_without_workers(path, service)):
            yield path, line


def python_files(folder: Path) -> Iterator[Path]:
    """The service's own modules, without tests, workers and hidden folders."""
    for top, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if not NOT_SEARCHED.fullmatch(each)]
        for name in names:
            if name.endswith(".py") and not NOT_SEARCHED.fullmatch(name):
                yield Path(top, name)


NOT_SEARCHED = re.compile(
    r"\..*|__pycache__|node_modules|venv|workers|tests?|test_.*|.*_test\.py|conftest\.py"
)


def app_without_workers(path: Path, service: Service) -> int:
    """The line of an app that starts no workers, 0 for none."""
    try:
        data = path.read_bytes()
        if b"FastAPI" not in data:
            return 0
        source, _ = read(data)
    except (OSError, Stop):
        return 0
    its = service._replace(file=path, app="")
    if its.uses(source) or wired_elsewhere(source, its):
        return 0
    free = [app for app in find_apps(source, path) if not mounted_on(source, app)]
    return free[0].calls[0].lineno if free else 0
