"""Which version of the library this is, and whether it is new enough for a service."""

import re
import sys
from importlib.metadata import version
from typing import NoReturn

NAME = "chancy-runtime"
VERSION = version(NAME)
_WAY_OUT = (
    f"raise it (uv: uv lock --upgrade-package {NAME} && uv sync, after the tag or the "
    "range in pyproject.toml; pip: pip install again what the service's README or the "
    "template's closing message names)"
)


def require_version(minimum: str) -> None:
    """Makes sure that the library is as new as the pattern that a service was rendered from.

    A service's `workers/__init__.py` calls it before anything else is imported. Rendered
    code of an older pattern runs on every later library of the same major version.

    Args:
        minimum: The first version that has what the service needs, such as "0.5".

    Raises:
        SystemExit: The library is older; under pytest it is an ImportError.
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
    # pytest takes a SystemExit for an error of its own, and this for a failed import.
    kind = type("VersionError", (pytest.fail.Exception, ImportError), {})
    raise kind(line, pytrace=False)


def _release(text: str) -> tuple[int, ...]:
    """Turns "3.3.6" into (3, 3, 6), and "2.0rc1" into (2, 0)."""
    release = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(number) for number in release[0].split(".")) if release else ()
