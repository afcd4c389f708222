"""Finds names in Chancy's own code."""

import inspect
import pkgutil
from importlib.metadata import version
from types import CodeType
from typing import Any

import pytest


def found(path: str) -> Any:
    """The object at a path such as chancy.worker:Worker.start."""
    try:
        return pkgutil.resolve_name(path)
    except (AttributeError, ImportError):
        pytest.fail(f"chancy {version('chancy')} has no {path}")


def names_in(code: CodeType) -> set[str]:
    """The names and texts that a function uses, including its inner functions."""
    names = {*code.co_names, *code.co_freevars}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= names_in(constant)
        elif isinstance(constant, str):
            names.add(constant)
        elif isinstance(constant, tuple | frozenset):
            names |= {each for each in constant if isinstance(each, str)}
    return names


def uses(path: str) -> set[str]:
    """The names and texts that the function at a path uses."""
    function = inspect.unwrap(found(path))
    return names_in(getattr(function, "__func__", function).__code__)
