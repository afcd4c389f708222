"""Says which package is missing, too old or too new before an import of it can fail."""

import re
import sys
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import NoReturn

_REQUIREMENT = re.compile(
    r"(?P<name>[\w-]+)(\[(?P<extras>[\w,]+)\])?>=(?P<minimum>[\d.]+)"
    r"(,<(?P<limit>[\d.]+))?"
)
_MODULES_OF_EXTRA = {"cron": ["croniter", "tzdata"], "pool": ["psycopg_pool"]}


def check_requirements(*requirements: str) -> None:
    """Ends the process, or the tests, with one line when a requirement is not met.

    Args:
        requirements: Each as "name[extra]>=minimum" or "name[extra]>=minimum,<limit".

    Raises:
        SystemExit: A package is missing, too old, too new or without one of its extras;
            under pytest an ImportError.
    """
    problems = [
        problem for requirement in requirements if (problem := _problem(requirement))
    ]
    if problems:
        quoted = " ".join(f'"{requirement}"' for requirement in requirements)
        _stop(f"{__package__}: {', '.join(problems)}: run uv add {quoted}")


def _stop(line: str) -> NoReturn:
    pytest = sys.modules.get("pytest")
    if not pytest:
        raise SystemExit(line)
    # pytest takes a SystemExit for an error of its own, and this for a failed import.
    missing = type("RequirementError", (pytest.fail.Exception, ImportError), {})
    raise missing(line, pytrace=False)


def _problem(requirement: str) -> str:
    match = _REQUIREMENT.fullmatch(requirement)
    assert match, requirement
    name, minimum = match["name"], match["minimum"]
    try:
        installed = version(name)
    except PackageNotFoundError:
        return f"{name} is not installed"
    if _release(installed) < _release(minimum):
        return f"{name} {installed} is older than {minimum}"
    if match["limit"] and _release(installed) >= _release(match["limit"]):
        return f"{name} {installed} is not older than {match['limit']}"
    for extra in (match["extras"] or "").split(","):
        missing = [
            module
            for module in _MODULES_OF_EXTRA.get(extra, [])
            if not find_spec(module)
        ]
        if missing:
            return (
                f"{name} is installed without its extra {extra} ({', '.join(missing)})"
            )
    try:
        import_module(name.replace("-", "_"))
    except ImportError as error:
        return f"{name} cannot be imported ({error})"
    return ""


def _release(text: str) -> tuple[int, ...]:
    """Turns "3.3.6" into (3, 3, 6), and "2.0rc1" into (2, 0)."""
    release = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(number) for number in release[0].split(".")) if release else ()
