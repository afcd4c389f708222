"""A change of a render, made to a file that the team has edited beside it.

A merge by lines has a conflict as soon as the team wrote something next to what changed.
This one goes by whole statements of the module.
"""

import ast
import re
from difflib import SequenceMatcher

LINES = re.compile(r"(?<=\n)|(?<=\r)(?!\n)")
IMPORT = ("import ", "from ")


def merge_statements(mine: str, before: str, after: str, *, imports: bool) -> str:
    """Takes out of a module what a render had, and puts in what it has now.

    What the team wrote stays, as does a statement of the render's that it has changed.

    Args:
        imports: Whether imports are changed as well.

    Raises:
        SyntaxError: One of them is not Python.
    """
    there = _statements(mine)
    place = {body: index for index, (_, body) in enumerate(there)}
    old, new = (
        [
            each
            for each in _statements(text)
            if imports or not each[1].startswith(IMPORT)
        ]
        for text in (before, after)
    )
    matcher = SequenceMatcher(
        None, [body for _, body in old], [body for _, body in new], autojunk=False
    )
    gaps: dict[int, str] = {}
    gone: set[int] = set()
    put: dict[int, str] = {}
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        found = [place[body] for _, body in old[i:i_end] if body in place]
        if tag == "equal":
            for (was, body), (gap, _) in zip(old[i:i_end], new[j:j_end], strict=True):
                if body in place:
                    at = place[body]
                    gaps[at] = gap if there[at][0] == was else there[at][0]
            continue
        gone.update(found)
        if tag == "insert":
            found = [place[body] for _, body in old[:i] if body in place][-1:]
        for at in found[:1]:
            put[at] = "".join(gap + body for gap, body in new[j:j_end])
    return _joined(there, gaps, gone, put)


def _joined(
    there: list[tuple[str, str]],
    gaps: dict[int, str],
    gone: set[int],
    put: dict[int, str],
) -> str:
    text = wider = ""
    for index, (gap, body) in enumerate(there):
        if index in gone and not gap.strip():
            wider = max(wider, gap, key=len)
        elif index in gone:
            text += gap  # With a comment of the team's.
        else:
            if index not in gaps and not gap.strip():
                gap = max(wider, gap, key=len)
            text += gaps.get(index, gap) + body
            wider = ""
        text += put.get(index, "")
    return text


def _statements(text: str) -> list[tuple[str, str]]:
    """Each statement of a module with what is above it, and last what is below them."""
    lines = LINES.split(text)
    found = []
    end = 0
    for node in ast.parse(text).body:
        first = min(
            each.lineno for each in (node, *getattr(node, "decorator_list", []))
        )
        start = max(first - 1, end)
        found.append(
            ("".join(lines[end:start]), "".join(lines[start : node.end_lineno]))
        )
        end = node.end_lineno or end
    return [*found, ("".join(lines[end:]), "")]
