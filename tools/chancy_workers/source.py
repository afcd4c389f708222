"""Finds the template from which this program was installed."""

import importlib.util
import json
import sys
from importlib.metadata import distribution
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

CHECKOUT = Path(__file__).parents[2]


def template() -> str:
    """Returns the TEMPLATE argument of `copier copy`: a path, or the URL of a repository.

    Installers record the origin of a package (PEP 610): `uvx --from URL` records the URL,
    `uv sync` and `uvx --from PATH` the folder.

    Raises:
        LookupError: The package was installed from an index, which has no template.
    """
    if (CHECKOUT / "copier.yml").is_file():
        return str(CHECKOUT)
    recorded = distribution("chancy-workers").read_text("direct_url.json")
    if not recorded:
        raise LookupError(
            "this program was installed without its template: name one with --template"
        )
    return place_of(json.loads(recorded))


def place_of(recorded: dict[str, Any]) -> str:
    """Returns the template's location for Copier from the origin that an installer recorded.

    Copier needs git+ before the URL of a repository.
    """
    parts = urlsplit(recorded["url"])
    if parts.scheme == "file":
        return unquote(parts.path)
    return f"git+{recorded['url']}" if "vcs_info" in recorded else str(recorded["url"])


def task(name: str) -> ModuleType:
    """Loads a module or package that Copier runs, or a module of the library.

    It is beside this module in a wheel, and in tasks/ or runtime/ in a checkout.
    """
    library = CHECKOUT / "runtime" / "src" / "chancy_runtime"
    folders = (Path(__file__).parent, CHECKOUT / "tasks", library)
    places = [folder / each for folder in folders for each in (f"{name}.py", name)]
    path = next(place for place in places if place.exists())
    if path.is_dir():
        path /= "__init__.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
