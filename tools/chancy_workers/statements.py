"""Applies the difference between two renders to a module that the team has edited.

A merge by lines conflicts as soon as the team wrote something next to a changed line. This
merge compares whole statements of the module.
"""

import ast
import re
from difflib import SequenceMatcher
from typing import NamedTuple

LINES = re.compile(r"(?<=\n)|(?<=\r)(?!\n)")


class Statement(NamedTuple):
    """A statement of a module, with the lines above it.

    Args:
        code: The code without layout, comments and docstrings, which are worded otherwise
            in a file of an older release. Statements are compared by it.
    """

    gap: str
    body: str
    code: str


def merge_statements(mine: str, before: str, after: str, *, imports: bool) -> str:
    """Replaces the statements of a module that differ between two renders.

    Statements that the team wrote stay, and so do rendered ones whose code it has changed.

    Args:
        mine: The team's module.
        before: The render that it came from.
        after: The render that it should follow.
        imports: Whether imports are changed too.

    Raises:
        SyntaxError: One of them is not Python.
    """
    there = _statements(mine)
    place = {each.code: index for index, each in enumerate(there)}
    old, new = (
        [
            each
            for each in _statements(text)
            if imports or not each.code.startswith("Import")
        ]
        for text in (before, after)
    )
    codes = ([each.code for each in old], [each.code for each in new])
    matcher = SequenceMatcher(None, *codes, autojunk=False)
    gaps: dict[int, str] = {}
    gone: set[int] = set()
    put: dict[int, str] = {}
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        found = [place[each.code] for each in old[i:i_end] if each.code in place]
        if tag == "equal":
            for was, now in zip(old[i:i_end], new[j:j_end], strict=True):
                if was.code in place:
                    at = place[was.code]
                    gap = there[at].gap
                    gaps[at] = now.gap if gap == was.gap else gap
            continue
        gone.update(found)
        if tag == "insert":
            found = [place[each.code] for each in old[:i] if each.code in place][-1:]
        for at in found[:1]:
            put[at] = "".join(each.gap + each.body for each in new[j:j_end])
    return _joined(there, gaps, gone, put)


def _joined(
    there: list[Statement],
    gaps: dict[int, str],
    gone: set[int],
    put: dict[int, str],
) -> str:
    text = wider = ""
    for index, (gap, body, _) in enumerate(there):
        if index in gone and not gap.strip():
            wider = max(wider, gap, key=len)
        elif index in gone:
            text += gap  # It has a comment of the team.
        else:
            if index not in gaps and not gap.strip():
                gap = max(wider, gap, key=len)
            text += gaps.get(index, gap) + body
            wider = ""
        text += put.get(index, "")
    return text


def _statements(text: str) -> list[Statement]:
    """Returns the statements of a module, and an empty one with the lines below them."""
    lines = LINES.split(text)
    found = []
    end = 0
    for node in ast.parse(text).body:
        first = min(
            each.lineno for each in (node, *getattr(node, "decorator_list", []))
        )
        start = max(first - 1, end)
        gap = "".join(lines[end:start])
        end = node.end_lineno or end
        found.append(Statement(gap, "".join(lines[start:end]), _code(node)))
    return [*found, Statement("".join(lines[end:]), "", "")]


def _code(statement: ast.stmt) -> str:
    for node in ast.walk(statement):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if ast.get_docstring(node) is not None:
                del node.body[0]
    return ast.dump(statement)
