"""Changes of a formatter in Python code are distinguished from edits of a person."""

import pytest
from chancy_workers.source import task

TEXT = '''\
"""Docstring.

    Indented.
"""

from a import b, c


def f(x: int = 1) -> str:
    """Docstring

    of two lines.
    """
    # A comment.
    assert x, "one " "two"
    return g("a", x)  # noqa: B1
'''
LAYOUTS = {
    "same": {},
    "parentheses": {"b, c": "(b, c)", "return g": "return (g", "x)  #": "x))  #"},
    "trailing-commas": {"b, c": "(\n    b,\n    c,\n)", "x)  #": "x,)  #"},
    "several-lines": {'("a", x)': '(\n        "a",\n        x,\n    )'},
    "quotes": {'"a"': "'a'"},
    "joined": {'"one " "two"': '"one two"'},
    "spaces": {"int = 1": "int=1", "\n\n\n": "\n"},
    "tabs": {"\n    ": "\n\t"},
    "line-ends": {"\n": "\r\n"},
}
EDITS = {
    "value": ("int = 1", "int = 2"),
    "string": ("one ", "one"),
    "docstring": ("Docstring", "Doc"),
    "comment": ("A comment", "Another"),
    "no-comment": ("    # A comment.\n", ""),
    "pragma": ("B1", "B2"),
    "import": ("b, c", "c, b"),
    "broken": ("def f", "def"),
    "nul": ("A comment", "\0"),
}


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_a_change_of_layout_is_not_an_edit(name: str) -> None:
    changed = TEXT
    for old, new in LAYOUTS[name].items():
        assert old in changed
        changed = changed.replace(old, new)

    assert task("layout").differ_in_layout_only(TEXT, changed)


@pytest.mark.parametrize("name", list(EDITS))
def test_an_edit_is_more_than_a_change_of_layout(name: str) -> None:
    old, new = EDITS[name]

    assert not task("layout").differ_in_layout_only(TEXT, TEXT.replace(old, new))
