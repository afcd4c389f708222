"""Compares Python code without its layout, which formatters change."""

import ast
import tokenize
from inspect import cleandoc
from io import StringIO


def differ_in_layout_only(one: str, other: str) -> bool:
    """Whether two texts are the same code, with the same comments."""
    try:
        return statements(one) == statements(other) and comments(one) == comments(other)
    except (SyntaxError, ValueError, tokenize.TokenError):
        return False


def statements(text: str) -> list[str]:
    """The syntax trees of a module's statements, without the indentation of docstrings.

    Raises:
        SyntaxError: The text is not Python.
        ValueError: It contains a NUL.
    """
    module = ast.parse(text)
    for node in ast.walk(module):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text)) as docstring):
                docstring.value = cleandoc(text)
    return [*map(ast.dump, module.body)]


def comments(text: str) -> list[str]:
    """The comments of a module, in order.

    Raises:
        tokenize.TokenError: The text is not Python.
    """
    tokens = tokenize.generate_tokens(StringIO(text).readline)
    return [token.string for token in tokens if token.type == tokenize.COMMENT]
