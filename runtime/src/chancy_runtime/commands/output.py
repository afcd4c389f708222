"""The output of commands for people: plain text without colours."""

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Cell: TypeAlias = str | int | None
_GAP = "  "
_SHORTEST_CUT = 20


def print_table(rows: Sequence[Mapping[str, Cell]]) -> None:
    """Prints rows below the names of their columns; columns without a value are left out.

    On a terminal the last column is cut to fit its width.
    """
    names = [
        name for name in rows[0] if any(row[name] not in (None, "") for row in rows)
    ]
    texts = [names, *([_text(row[name]) for name in names] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    numbers = [all(map(_is_number, column[1:])) for column in zip(*texts, strict=True)]
    if sys.stdout.isatty():
        left = (
            shutil.get_terminal_size().columns
            - sum(widths[:-1])
            - len(_GAP) * (len(widths) - 1)
        )
        widths[-1] = min(widths[-1], max(left, _SHORTEST_CUT))
    for line in texts:
        cells = [
            text.rjust(width) if is_number else text.ljust(width)
            for text, width, is_number in zip(line, widths, numbers, strict=True)
        ]
        cells[-1] = cells[-1][: widths[-1]]
        print(_GAP.join(cells).rstrip())


def _text(value: Cell) -> str:
    return "" if value is None else printable(str(value))


def _is_number(text: str) -> bool:
    return not text or text.rstrip("+").isdigit()


def printable(text: str) -> str:
    """Returns a text with the characters escaped that could control the terminal.

    Anybody who can write a row chooses the texts in it.
    """
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode()
        for each in text
    )


def counted(number: int, noun: str) -> str:
    """Returns "1 job" or "2 jobs"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def age(seconds: float | None) -> str:
    """Returns a time span in its two largest units, such as "2h 5m"."""
    if seconds is None:
        return ""
    rest = max(0, int(seconds))
    parts: list[str] = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        number, rest = divmod(rest, size)
        if number or parts:
            parts.append(f"{number}{unit}")
    return " ".join(parts[:2]) or "0s"
