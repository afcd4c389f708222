"""Python code without its layout: what a formatter leaves as it is."""

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
    """The statements of a module, each as the compiler sees it.

    How a docstring is indented is layout.

    Raises:
        SyntaxError: The text is no Python.
        ValueError: There is a NUL in it.
    """
    module = ast.parse(text)
    for node in ast.walk(module):
        match node:
            case ast.Expr(value=ast.Constant(value=str(told)) as docstring):
                docstring.value = cleandoc(told)
    return [*map(ast.dump, module.body)]


def comments(text: str) -> list[str]:
    """The comments of a module, in order.

    Raises:
        tokenize.TokenError: The text is no Python.
    """
    tokens = tokenize.generate_tokens(StringIO(text).readline)
    return [token.string for token in tokens if token.type == tokenize.COMMENT]
