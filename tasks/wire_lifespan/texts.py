"""All texts that are written into the team's files, and the program's messages."""

from __future__ import annotations

from typing import NamedTuple

ENTER = "async with {name}():"
INCLUDE = "{app}.include_router({router}({name}))"
IMPORT = "from {module} import {name}"
IMPORT_AS = "from {module} import {name} as {alias}"


class Form(NamedTuple):
    """A name to import, and its alias if the name is taken."""

    module: str
    name: str
    alias: str


ENTERED = Form("chancy_initialization", "initialize_workers", "initialize_{}_workers")
ROUTER = Form("chancy_runtime.web", "workers_router", "chancy_workers_router")
# The router of services rendered by v0.1.0 to v0.4.1.
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
To wire it by hand, put this around the yield of the app's lifespan, after all setup:
    {enter}
with this import: {import_entered}
or include this router after everything else in the app (FastAPI 0.112.2 or later):
    {include}
with the same import and this one: {import_router}"""
UNKNOWN_VERSION = """
Could not determine the FastAPI version from a lock file, requirements or a virtual
environment. With a version before 0.112.2 the start fails with a message."""
AS_A_FILE = """
No file shows how it is started. The import of the workers fits {stem}:app and python
{stem}.py. If it is started as a module of a package, put a dot before workers."""
AS_A_PACKAGE = """
No file shows how it is started. The import of the workers fits a module of a package, such as
{folder}.{stem}:app. If it is started as {stem}:app or python {stem}.py, remove the dot before workers."""
NOT_WITH_FASTAPI = """
The relative import does not work with fastapi run or fastapi dev: {folder} has no __init__.py."""
SWITCHED = "{file} now imports from chancy_runtime instead of workers/ (line {rows})."
NOT_SWITCHED = "{file} uses modules that workers/ no longer has. Change by hand:"
BUG = """\
{file} is left as it is: could not prove that wiring it changes nothing else ({reason}).
That is a bug in this program: please report it with the file's first lines, its app
and its lifespan."""


class Stop(Exception):
    """Ends a run without writing; has the outcome and the message."""

    def __init__(self, outcome: str, text: str, *, by_hand: bool = False) -> None:
        super().__init__(text)
        self.outcome = outcome
        self.by_hand = by_hand


class NotProven(Exception):
    """An edit that would change more than it should."""
