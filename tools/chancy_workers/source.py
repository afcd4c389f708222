"""Where the template is that this program came with."""

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
    """Returns what `copier copy` takes as TEMPLATE: a path, or the URL of a repository.

    An installer notes where a package came from (PEP 610): `uvx --from URL` leaves the
    URL, `uv sync` and `uvx --from PATH` the folder.

    Raises:
        LookupError: The package was installed from an index, which holds no template.
    """
    if (CHECKOUT / "copier.yml").is_file():
        return str(CHECKOUT)
    noted = distribution("chancy-workers").read_text("direct_url.json")
    if not noted:
        raise LookupError(
            "this program does not know where its template is: name it with --template"
        )
    return place_of(json.loads(noted))


def place_of(noted: dict[str, Any]) -> str:
    """Returns what Copier takes for the place that an installer noted.

    Copier knows a repository behind a URL by git+ in front.
    """
    parts = urlsplit(noted["url"])
    if parts.scheme == "file":
        return unquote(parts.path)
    return f"git+{noted['url']}" if "vcs_info" in noted else str(noted["url"])


def task(name: str) -> ModuleType:
    """Loads a program that Copier runs, a module or a package; or one of the library's.

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
