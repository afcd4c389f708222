"""Any file, generated or broken, is wired without other changes or left alone."""

import ast
import atexit
import random
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import indent
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from .wiring_cases import (
    ALREADY,
    CASES,
    STATUS,
    WIRED,
    WIRED_CASES,
    Backend,
    Case,
    difference,
    lines_of,
    tree,
    tree_without_wiring,
    unused_workers,
)
from .wiring_mutations import EXAMPLES, delete, duplicate, many_examples, shift, swap

# The program's message about an edit that it could not prove.
FAULT = "a bug in this program"
FORMS = ("yield", "router", "left")
PLAIN = next(case for case in CASES if case.case == "plain_lifespan")


# ---------------------------------------------------------------------------------------
# Generated files
# ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Made:
    """A generated file and its expected outcome."""

    source: bytes
    outcome: str

    def __repr__(self) -> str:
        return f"{self.outcome}:\n{self.source!r}"


@dataclass(frozen=True)
class Block:
    """Statements, indented by four, and the form of wiring that they allow."""

    text: str
    form: str

    def inside(self, around: str, form: str = "yield") -> "Block":
        """`around` with its line BODY replaced by the block."""
        lines = []
        for line in around.splitlines():
            if line.strip() == "BODY":
                lines.append(indent(self.text, line[: line.index("BODY")]))
            else:
                lines.append(line)
        return Block("\n".join(lines), worse(self.form, form))


def worse(*forms: str) -> str:
    return max(forms, key=FORMS.index)


YIELDS = (
    "yield",
    "yield",
    "yield  # hands over",
    "yield {'a': 1}",
    "(yield)",
    "yield {\n    'a': 1,\n\n    'b': 2,  # two\n}",
    "yield dict(\na='''\n  kept\n\tas it is\n''')",
    "yield \\\n    {'a': 1}",
    "x = yield",
)
# The awaited call is setup, which must run before the workers start.
AWAITED = "yield {'a': await app.connect()}"
AROUND = (
    ("try:\n    BODY\nfinally:\n    print('closed')", "yield"),
    ("try:\n    BODY\nexcept OSError:\n    raise", "yield"),
    ("try:\n    BODY\nexcept Exception as e:\n    print(e)\n    raise", "yield"),
    ("async with resource('a') as a:\n    BODY", "yield"),
    ("async with resource('a'), \\\n      resource('b'):\n    BODY", "yield"),
    ("async with (\n    resource('a'),\n    resource('b'),\n):\n    BODY", "yield"),
    ("async with initialize_shipping_workers():\n    BODY", "yield"),
    ("async with create_task_group() as g:\n    BODY\n    g.cancel()", "yield"),
    ("with open(__file__):\n    BODY\n    print('read')", "yield"),
    ("if app:\n    BODY\nelse:\n    raise RuntimeError('no')", "yield"),
    (
        "match app:\n    case None:\n        raise OSError\n    case _:\n        BODY",
        "yield",
    ),
    ("for _ in range(1):\n    BODY", "router"),
    ("while True:\n    BODY\n    break", "router"),
    ("try:\n    BODY\nexcept Exception:\n    print('lost')", "router"),
    ("with suppress(Exception):\n    BODY", "router"),
    ("try:\n    BODY\nexcept (ValueError, Exception):\n    return", "router"),
    ("try:\n    BODY\nexcept Exception as e:\n    raise OSError from e", "yield"),
    ("try:\n    print('try')\nexcept OSError:\n    raise\nelse:\n    BODY", "yield"),
    ("try:\n    BODY\nexcept:\n    pass", "left"),
    ("try:\n    BODY\nexcept BaseException as e:\n    print(e)", "left"),
    ("if app:\n    BODY\nelse:\n    yield", "router"),
)
STATEMENTS = (
    "print('statement')",
    "app.state.ready = True",
    "# a comment",
    "a = [\n    1,\n  2,\n]",
    "text = '''\n  yield\nasync with initialize_workers():\n'''",
    "if True: print('short')",
    "await asyncio.sleep(0); print('two')",
    "def inner():\n    yield 1",
    "for each in inner(): print(each)",
    "x = lambda: 1",
)
IMPORTS = (
    "import os",
    "import os, sys",
    "import sys; import json",
    "import logging  # for the log",
    "from typing import (\n    Any,\n    Final,\n)",
    "from collections.abc import \\\n    AsyncIterator",
    "try:\n    import orjson\nexcept ImportError:\n    orjson = None",
    "from pathlib import Path",
)
LOCAL_IMPORTS = (
    "from .models import Invoice",
    "from . import settings",
    "from app.billing.models import Invoice",
    "from app.billing import zones as z",
)
MODULE_STATEMENTS = (
    "LIMIT = 3",
    "log = logging.getLogger(__name__)",
    "class Model:\n    name: str = 'x'\n\n    def total(self):\n        return 1",
    "def helper(a, *, b=2):\n    '''Helps: app = FastAPI().'''\n    return a + b",
    "SQL = '''\nSELECT 1\n  -- app = FastAPI()\n'''",
    "@dataclass\nclass Row:\n    a: int",
    "if os.environ.get('X'):\n    LIMIT = 4",
    'print(f"{LIMIT!r:>{10}}")',
    "'a string by itself'",
    "[each for each in range(3)]; pass",
    "def initialize_workers(count):\n    return count",
    "workers_router = None",
)
APP_STATEMENTS = (
    "@app.get('/')\nasync def index():\n    return {}",
    "app.include_router(APIRouter())",
    "app.add_middleware(CORSMiddleware, allow_origins=['*'])",
    "@app.middleware('http')\nasync def timed(request, call_next):\n"
    "    return await call_next(request)",
    "@app.on_event('startup')\ndef startup():\n    print('startup')",
    "app.mount('/static', StaticFiles(directory='.'))",
    "for r in (APIRouter(),):\n    app.include_router(r)",
    "register(app)",
    "app.state.x = 1; app.state.y = 2",
    "app.state.note = '''\nover\n  lines'''",
)


@st.composite
def lifespans(draw: st.DrawFn) -> Block:
    """A complete lifespan function."""
    if draw(st.integers(0, 9)) == 0:
        return Block(
            "@asynccontextmanager\nasync def lifespan(app): print(1); yield; print(2)",
            "router",
        )
    block = Block(draw(st.sampled_from(YIELDS)), "yield")
    if draw(st.integers(0, 9)) == 0:
        block = Block(AWAITED, "router")
    for _ in range(draw(st.integers(0, 3))):
        around, form = draw(mostly_wrapped(AROUND))
        before = "".join(f"{each}\n" for each in draw(statements()))
        after = "".join(f"\n{each}" for each in draw(statements()))
        block = block.inside(around, form)
        block = Block(f"{before}{block.text}{after}", block.form)
    decorator = draw(
        st.sampled_from(["@asynccontextmanager\n", "@contextlib.asynccontextmanager\n"])
    )
    head = draw(
        st.sampled_from(
            [
                "async def lifespan(app: FastAPI):",
                "async def lifespan(app: FastAPI) -> AsyncIterator[None]:",
                "async def lifespan(\n    app,\n):  # the app's",
            ]
        )
    )
    doc = draw(st.sampled_from(["", "'''Opens and closes.'''\n", "'''A\n\n  B\n'''\n"]))
    body = indent(f"{doc}{block.text}", "    ")
    return Block(f"{decorator}{head}\n{body}", block.form)


def mostly_wrapped(choices: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    """One of the choices, by their second part more often one that is wrapped."""
    wrapped = [choice for choice in choices if choice[1] == "yield"]
    left = [choice for choice in choices if choice[1] == "left"]
    return st.sampled_from(wrapped * 2 + list(choices) + left * 2)


def statements() -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(STATEMENTS), max_size=2)


@st.composite
def bound_apps(draw: st.DrawFn, arguments: str) -> Block:
    """The statement that makes the app, and the statements that use it."""
    made = draw(
        st.sampled_from(
            [
                f"app = FastAPI({arguments})",
                f"app: FastAPI = FastAPI({arguments})",
                f"app = fastapi.FastAPI(\n    {arguments}\n)",
                f"app = \\\n    FastAPI({arguments})  # the app",
                f"application = app = FastAPI({arguments})",
                f"app = Service({arguments})",
            ]
        )
    )
    uses = draw(st.lists(st.sampled_from(APP_STATEMENTS), max_size=4))
    gap = draw(gaps())
    return Block(gap.join([made, *uses]), "yield")


def gaps() -> st.SearchStrategy[str]:
    return st.sampled_from(["\n", "\n\n", "\n\n\n", "\n# --- \n", "\n  \n"])


# The arguments of the app, the form of wiring that follows, and code needed before the app.
GIVEN: tuple[tuple[str, str, str], ...] = (
    ("lifespan=lifespan", "yield", ""),
    ("title='a', lifespan=lifespan", "yield", ""),
    ("lifespan=lifespan, **{'debug': True}", "yield", ""),
    ("", "router", ""),
    ("title='FastAPI(lifespan=lifespan)'", "router", ""),
    ("lifespan=None", "router", ""),
    ("lifespan=make(lifespan)", "router", "def make(f):\n    return f"),
    ("lifespan=lifespan if LIMIT else None", "router", "LIMIT = 1"),
    ("**params", "router", "params = {'lifespan': lifespan}"),
    ("lifespan=holder.lifespan", "router", "class holder:\n    lifespan = lifespan"),
    ("on_startup=[print], on_shutdown=[print]", "router", ""),
)


@st.composite
def modules(draw: st.DrawFn) -> tuple[str, str]:
    """The text of a file with LF and an indentation of four spaces, and its outcome."""
    lifespan = draw(lifespans())
    arguments, form, before = draw(mostly_wrapped(GIVEN))
    app = draw(bound_apps(arguments))
    made = [lifespan.text, *filter(None, [before]), app.text]
    parts = draw(placed(made))
    imports = draw(import_block())
    noise = draw(st.lists(st.sampled_from(MODULE_STATEMENTS), max_size=3))
    at = draw(st.integers(0, len(parts)))
    parts[at:at] = noise
    tail = draw(
        st.sampled_from(
            [
                "",
                "if __name__ == '__main__':\n    uvicorn.run(app)",
                "__all__ = ['app']",
                "# the end",
            ]
        )
    )
    head = draw(st.sampled_from(["", "'''The service.'''", '"""Doc\n\n  app\n"""']))
    gap = draw(st.sampled_from(["\n", "\n\n", "\n\n\n", "\n\f\n"]))
    text = gap.join(filter(None, [head, imports, *parts, tail]))
    return text, outcome(lifespan, form)


def outcome(lifespan: Block, given: str) -> str:
    """The outcome for a lifespan and the form that the app's arguments lead to."""
    if given == "yield":
        return lifespan.form
    return "router"


@st.composite
def placed(draw: st.DrawFn, made: list[str]) -> list[str]:
    """The app's parts at module level, in a factory, or in both."""
    match draw(st.sampled_from(["module", "factory", "called", "mixed", "class"])):
        case "module":
            return made
        case "factory":
            return [function("create_app() -> FastAPI", [*made, "return app"])]
        case "called":
            inner = function("create_app()", [*made, "return app"])
            return [inner, "app = create_app()"]
        case "mixed":
            *before, app = made
            return [*before, function("build(debug=False)", [app, "return app"])]
        case _:
            *before, app = made
            return [*before, f"if True:\n{indent(app, '    ')}"]


def function(head: str, parts: list[str]) -> str:
    return f"def {head}:\n" + "\n\n".join(indent(part, "    ") for part in parts)


@st.composite
def import_block(draw: st.DrawFn) -> str:
    needed = [
        "from contextlib import asynccontextmanager, suppress",
        draw(
            st.sampled_from(
                [
                    "from fastapi import FastAPI",
                    "from fastapi import (\n    APIRouter,\n    FastAPI,\n)",
                    "from fastapi import APIRouter, FastAPI  # noqa: E402",
                ]
            )
        ),
        "import fastapi",
        "import contextlib, asyncio",
    ]
    others = draw(st.lists(st.sampled_from(IMPORTS), max_size=3))
    local = draw(st.lists(st.sampled_from(LOCAL_IMPORTS), max_size=2))
    block = [*needed, *others]
    if draw(st.booleans()):
        block.sort()
    else:
        block = draw(st.permutations(block))
    gap = draw(st.sampled_from(["\n", "\n\n", "\n# imports\n"]))
    lines = gap.join([*block, *local])
    if draw(st.booleans()):
        lines = f"from __future__ import annotations\n\n{lines}"
    subclass = "\n\nclass Service(FastAPI):\n    pass"
    return f"{lines}\n{subclass}"


@st.composite
def files(draw: st.DrawFn) -> Made:
    """A file as bytes: a module with random formatting and encoding."""
    text, outcome = draw(modules())
    text = draw(commented(text))
    text = reindented(text, draw(st.sampled_from(["    ", "  ", "\t", " ", "   "])))
    encoding, cookie, comment = draw(st.sampled_from(ENCODINGS))
    text = f"{cookie}{text}\n# {comment}"
    text += draw(st.sampled_from(["", "\n", "\n\n\n", "\n\f\n", "\n   "]))
    newline = draw(st.sampled_from(["\n", "\n", "\r\n", "\r"]))
    return Made(text.replace("\n", newline).encode(encoding), outcome)


ENCODINGS = (
    ("utf-8", "", "plain"),
    ("utf-8", "", "日本語 🧾 \u2028 \x85 \x0c"),
    ("utf-8-sig", "", "with a BOM, naïve"),
    ("utf-8", "#!/usr/bin/python\n# -*- coding: utf-8 -*-\n", "é"),
    ("latin-1", "# -*- coding: latin-1 -*-\n", "Grüße\x85 nel"),
    ("cp1252", "# vim: set fileencoding=cp1252 :\n", "10 €"),
    ("iso-8859-15", "# coding=iso-8859-15\n", "10 €"),
    ("shift_jis", "# coding: shift_jis\n", "日本語 表"),
    ("utf-8", "# coding: utf8\n", "ﬁne"),
)


@st.composite
def commented(draw: st.DrawFn, text: str) -> str:
    """Comments and blank lines before some statements, where Python allows them."""
    lines = text.split("\n")
    starts = [row for row in statement_rows(text) if row]
    for row in sorted(
        draw(st.lists(st.sampled_from(starts), max_size=3, unique=True)), reverse=True
    ):
        space = lines[row][: len(lines[row]) - len(lines[row].lstrip())]
        extra = draw(st.sampled_from(["# why", "", "   ", "#", "\f", "# yield"]))
        lines.insert(row, f"{space}{extra}" if extra.startswith("#") else extra)
    return "\n".join(lines)


def statement_rows(text: str) -> Iterator[int]:
    """Rows, from 0, in which a statement is the first on its line."""
    lines = text.split("\n")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.stmt) and not getattr(node, "decorator_list", []):
            before = lines[node.lineno - 1].encode()[: node.col_offset]
            if not before.strip():
                yield node.lineno - 1


def reindented(text: str, unit: str) -> str:
    """The text with another indentation, also inside strings."""

    def line(each: str) -> str:
        depth, rest = divmod(len(each) - len(each.lstrip(" ")), 4)
        return unit * depth + " " * rest + each.lstrip(" ")

    return "\n".join(map(line, text.split("\n")))


@cache
def folder_for_backends() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="wiring-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


@cache
def backend_of(case: Case) -> Backend:
    """A case's only backend, so that its other files are written once for all examples."""
    return Backend(folder_for_backends() / case.case, case)


def backend_with(source: bytes, case: Case = PLAIN) -> Backend:
    """A backend with the layout of a case and these bytes in the file."""
    backend = backend_of(case)
    backend.file.write_bytes(source)
    return backend


def hold_promises(backend: Backend) -> int:
    """Wires a file and checks what is promised for every file; returns the status."""
    source, run = backend.bytes, backend.wire()
    wired = backend.bytes
    assert run.status in STATUS.values()
    assert FAULT not in run.text, run.text
    if run.status != WIRED:
        assert wired == source
        return run.status
    _, moved = difference(source, wired)
    assert moved <= longest_yield(source)
    assert tree_without_wiring(source, wired) == tree(source)
    assert backend.wire().status == ALREADY
    assert backend.bytes == wired
    removed = backend.wire("--remove")
    assert removed.status == WIRED, removed.text
    # An unused import of the workers gets used by the wiring, and is removed with it.
    assert backend.bytes == source or unused_workers(ast.parse(source))
    return WIRED


def longest_yield(source: bytes) -> int:
    nodes = ast.walk(ast.parse(source))
    found = [node for node in nodes if isinstance(node, ast.Yield)]
    rows = [(node.end_lineno or node.lineno) - node.lineno + 1 for node in found]
    return max(rows, default=0)


@many_examples
@given(files())
def test_any_file_is_wired_according_to_its_shape_and_unwired_byte_for_byte(
    made: Made,
) -> None:
    assert hold_promises(backend_with(made.source)) == STATUS[made.outcome]


# ---------------------------------------------------------------------------------------
# Broken files
# ---------------------------------------------------------------------------------------
Mutation = Callable[[list[bytes], random.Random], None]


@st.composite
def broken_files(draw: st.DrawFn) -> tuple[Case, bytes]:
    """A file of the corpus after up to four mutations of its lines."""
    case = draw(st.sampled_from([case for case in CASES if case.source]))
    lines = lines_of(case.source)
    chance = draw(st.randoms(use_true_random=False))
    mutations: tuple[Mutation, ...] = (delete, duplicate, swap, shift)
    for mutate in draw(st.lists(st.sampled_from(mutations), min_size=1, max_size=4)):
        if lines:
            mutate(lines, chance)
    return case, b"".join(lines)


@settings(many_examples, max_examples=EXAMPLES // 4)
@given(broken_files())
def test_a_broken_file_is_never_damaged_further(broken: tuple[Case, bytes]) -> None:
    case, source = broken
    hold_promises(backend_with(source, case))


# ---------------------------------------------------------------------------------------
# Files edited after they were wired
# ---------------------------------------------------------------------------------------
@cache
def wired_source(case: Case) -> bytes:
    backend = backend_with(case.source, case)
    assert backend.wire().status == WIRED
    return backend.bytes


@st.composite
def edited_files(draw: st.DrawFn) -> tuple[Case, bytes, list[bytes]]:
    """A wired file of the corpus with the team's edits, and the new lines without endings."""
    case = draw(st.sampled_from([case for case in WIRED_CASES if is_plain(case)]))
    lines = wired_source(case).decode().split("\n")
    rows = sorted({row for row in statement_rows("\n".join(lines)) if row})
    chosen = draw(st.lists(st.sampled_from(rows), min_size=1, max_size=3, unique=True))
    new: list[bytes] = []
    for row in sorted(chosen, reverse=True):
        space = lines[row][: len(lines[row]) - len(lines[row].lstrip())]
        text = draw(st.sampled_from(["# the team's", "print('team')", "assert True"]))
        lines.insert(row, f"{space}{text}")
        new.insert(0, text.encode())
    return case, "\n".join(lines).encode(), new


def is_plain(case: Case) -> bool:
    """Whether a file has only LF and ASCII, so that splitting it gives Python's rows."""
    return case.source.isascii() and not re.search(rb"[\r\f]", case.source)


@settings(many_examples, max_examples=EXAMPLES // 4)
@given(edited_files())
def test_lines_that_the_team_adds_to_a_wired_file_stay(
    edited: tuple[Case, bytes, list[bytes]],
) -> None:
    case, source, new = edited
    backend = backend_with(source, case)
    assert backend.wire().status == ALREADY
    assert backend.bytes == source
    run = backend.wire("--remove")
    assert FAULT not in run.text, run.text
    if run.status != WIRED:
        assert backend.bytes == source
        return
    added, moved = difference(case.source, backend.bytes)
    assert [line.strip() for line in added if line.strip()] == new
    assert not moved
