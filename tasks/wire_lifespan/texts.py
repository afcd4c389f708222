"""Every text that ends up in a file of the team, and what the program says."""

from __future__ import annotations

from typing import NamedTuple

ENTER = "async with {name}():"
INCLUDE = "{app}.include_router({router}({name}))"
IMPORT = "from {module} import {name}"
IMPORT_AS = "from {module} import {name} as {alias}"


class Form(NamedTuple):
    """A name that is imported, and its alias where the name is taken."""

    module: str
    name: str
    alias: str


ENTERED = Form("chancy_initialization", "initialize_workers", "initialize_{}_workers")
ROUTER = Form("chancy_runtime.web", "workers_router", "chancy_workers_router")
# How services of v0.1.0 to v0.4.1 had their router.
OLD_ROUTER = Form("chancy_router", "workers_router", "{}_workers_router")
WIRED, ALREADY, LEFT, NOTHING = "wired", "already wired", "left alone", "nothing to do"
STATUS = {WIRED: 0, ALREADY: 3, LEFT: 4, NOTHING: 5}
# The first release that runs the lifespans of included routers.
OLDEST_FASTAPI = (0, 112, 2)
OTHERS = {
    "flask": "Flask",
    "starlette": "Starlette",
    "quart": "Quart",
    "sanic": "Sanic",
    "litestar": "Litestar",
    "aiohttp": "aiohttp",
    "django": "Django",
    "falcon": "Falcon",
    "bottle": "Bottle",
    "tornado": "Tornado",
}
OTHER_APPS = ("Application", "get_asgi_application", "get_wsgi_application")
BY_HAND = """\
To wire it by hand, put this around the yield of the app's lifespan, after all set-up:
    {enter}
with this import: {import_entered}
or include this router after everything else that the app gets (FastAPI 0.112.2 or later):
    {include}
with the same import and this one: {import_router}"""
UNKNOWN_VERSION = """
Which FastAPI it runs on was not found in a lock file, requirements or a virtual
environment: before 0.112.2 the start fails and says so."""
AS_A_FILE = """
No file says how it is started. The import of the workers is right for {stem}:app and for
python {stem}.py; for a start as a module of a package, put a dot before workers."""
AS_A_PACKAGE = """
No file says how it is started. The import of the workers is right for a module of a package,
as in {folder}.{stem}:app; for {stem}:app or python {stem}.py, take the dot before workers away."""
SWITCHED = (
    "{file} now imports from chancy_runtime what came from workers/ (line {rows})."
)
NOT_SWITCHED = "{file} uses modules that are gone from workers/. Change by hand:"
BUG = """\
{file} is left as it is: the wiring of this shape could not be proven ({reason}).
That is a fault of this program: please report it with the file's first lines, its app
and its lifespan."""


class Stop(Exception):
    """The end of a run that does not write: the outcome, and the sentence about it."""

    def __init__(self, outcome: str, text: str, *, by_hand: bool = False) -> None:
        super().__init__(text)
        self.outcome = outcome
        self.by_hand = by_hand


class NotProven(Exception):
    """An edit that would change more than it should."""
