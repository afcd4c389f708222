"""The version of the library, and the check that it is new enough for a service."""

import re
import sys
from importlib.metadata import version
from typing import NoReturn

NAME = "chancy-runtime"
VERSION = version(NAME)
_WAY_OUT = (
    "upgrade it (uv: raise the tag or the range in pyproject.toml, then run uv lock "
    f"--upgrade-package {NAME} && uv sync; pip: repeat the pip install of the service's "
    "README or of the template's closing message)"
)


def require_version(minimum: str) -> None:
    """Makes sure that the library is new enough for the rendered code of a service.

    A service's `workers/__init__.py` calls it before anything else is imported. Code that
    an older release rendered runs on every later library of the same major version.

    Args:
        minimum: The first version that has what the service needs, such as "0.5".

    Raises:
        SystemExit: The library is older; under pytest an ImportError is raised instead.
    """
    if _release(VERSION) < _release(minimum):
        _stop(
            f"the workers of this service need {NAME} {minimum} or later, and {VERSION} "
            f"is installed: {_WAY_OUT}"
        )


def missing_name(name: str) -> ImportError:
    """Returns the error for a name that this version of the library does not have."""
    return ImportError(
        f"{NAME} {VERSION} has no {name}; a service that imports it was rendered for a "
        f"later version: {_WAY_OUT}"
    )


def _stop(line: str) -> NoReturn:
    pytest = sys.modules.get("pytest")
    if not pytest:
        raise SystemExit(line)
    # pytest reports a SystemExit as an internal error, and this as a failed import.
    kind = type("VersionError", (pytest.fail.Exception, ImportError), {})
    raise kind(line, pytrace=False)


def _release(text: str) -> tuple[int, ...]:
    """Turns "3.3.6" into (3, 3, 6), and "2.0rc1" into (2, 0)."""
    release = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(number) for number in release[0].split(".")) if release else ()
