"""Switches imports of modules that moved into the library chancy-runtime."""

from __future__ import annotations

from typing import NamedTuple

from .service import Service


class Switched(NamedTuple):
    """What becomes of a file: its new bytes, the lines switched, what is left to do."""

    data: bytes | None
    lines: list[int]
    problems: list[str]


class OldImport(NamedTuple):
    """What a file imports from a module that is gone."""

    line: int
    text: str
    write: str


def switch_imports(data: bytes, service: Service) -> Switched:
    return Switched(None, [], [])


def find_old_imports(data: bytes, service: Service) -> list[OldImport]:
    return []
