"""Where the template is that this program came with."""

import json
from importlib.metadata import distribution
from pathlib import Path
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
    url = json.loads(noted)["url"] if noted else ""
    if not url:
        raise LookupError(
            "this program does not know where its template is: name it with --template"
        )
    parts = urlsplit(url)
    return unquote(parts.path) if parts.scheme == "file" else str(url)
