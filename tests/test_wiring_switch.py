"""Imports of names that moved into the library are switched or reported, nothing else changes."""

import ast
import re
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from .support import run
from .wiring_cases import ALREADY, LEFT, lines_of, program, run_program
from .wiring_mutations import delete, duplicate, many_examples, shift, swap

FOLDER = Path(__file__).parent / "wiring"


@dataclass(frozen=True)
class Case:
    """A file, and its text after the switch."""

    name: str
    source: str
    to: str = ""
    at: str = "app/billing/main.py"
    problems: list[str] = field(default_factory=list)
    is_sorted: bool = True

    @property
    def after(self) -> str:
        return self.to or self.source


CASES = [
    Case(name, **{"source": "", **entry})
    for name, entry in tomllib.loads((FOLDER / "switch.toml").read_text()).items()
]
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def backend(folder: Path, case: Case) -> Path:
    """A backend after an update, with the file of a case."""
    for name in ("chancy_initialization", "chancy_instance", "send_digest/worker"):
        path = folder / f"app/billing/workers/{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (folder / "app/billing/models.py").touch()
    (folder / "app/observability.py").touch()
    file = folder / case.at
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(case.source.encode())
    return file


def switch(data: bytes, file: Path) -> Any:
    service = program.service_of(file, "billing", "app.billing", "")
    return program.switch_imports(data, service)


@every_case
def test_each_file_has_the_expected_outcome(case: Case, tmp_path: Path) -> None:
    switched = switch(case.source.encode(), backend(tmp_path, case))
    assert (switched.data or case.source.encode()).decode() == case.after
    assert switched.problems == case.problems
    assert bool(switched.lines) == bool(case.to)


@every_case
def test_a_second_run_changes_nothing(case: Case, tmp_path: Path) -> None:
    file = backend(tmp_path, case)
    first = switch(case.source.encode(), file)
    second = switch(case.after.encode(), file)
    assert second.data is None
    assert [re.sub(r"^\d+", "", each) for each in second.problems] == [
        re.sub(r"^\d+", "", each) for each in first.problems
    ]


@every_case
def test_old_imports_are_found_with_their_lines(case: Case, tmp_path: Path) -> None:
    file = backend(tmp_path, case)
    service = program.service_of(file, "billing", "app.billing", "")
    found = program.find_old_imports(case.source.encode(), service)
    assert {str(each) for each in found} >= {*case.problems}
    lines = case.source.splitlines()
    assert all(
        "workers" in lines[each.line - 1] or ".chancy_" in each.text for each in found
    )
    assert bool(found) == bool(case.problems or case.to)


@pytest.mark.parametrize(
    ("newline", "encoding", "comment"),
    [
        ("\r\n", "utf-8", "# naïve"),
        ("\r", "utf-8", "# naïve"),
        ("\n", "utf-8-sig", "# naïve"),
        ("\n", "latin-1", "# -*- coding: latin-1 -*-\n# Grüße"),
    ],
)
@every_case
def test_line_endings_and_encodings_stay(
    case: Case, newline: str, encoding: str, comment: str, tmp_path: Path
) -> None:
    source, after = (
        f"{comment}\n\n{text.strip()}".replace("\n", newline).encode(encoding)
        for text in (case.source, case.after)
    )
    switched = switch(source, backend(tmp_path, case))
    assert (switched.data or source) == after


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.to], ids=lambda case: case.name
)
def test_sorted_imports_stay_sorted(case: Case, tmp_path: Path) -> None:
    file = backend(tmp_path, case)
    before = file.with_name("original.py")
    before.write_text(case.source)
    file.write_text(case.to)
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache"]
    options = ["--select=I", "--output-format=concise"]
    output = run(*ruff, *options, file, before, cwd=tmp_path, check=False).stdout
    assert f"{case.at}:" not in output or "original.py:" in output or not case.is_sorted


# ---------------------------------------------------------------------------------------
# Generated files
# ---------------------------------------------------------------------------------------
OLD = {
    "chancy_app": ["Chancy"],
    "chancy_database": ["database_url", "get_secret_value", "connect"],
    "chancy_cron": ["Cron", "CronJob"],
    "chancy_health": ["health_router", "find_problems"],
    "chancy_router": ["workers_router"],
    "chancy_watchdog": ["Watchdog"],
}
OTHERS = (
    "import os",
    "import sys; import json",
    "from fastapi import FastAPI",
    "from psycopg_pool import AsyncConnectionPool  # pools",
    "from .workers.chancy_instance import get_chancy",
    "from .workers.chancy_initialization import initialize_workers",
    "from .models import Invoice",
    "from app.billing import models as m",
    "# a comment",
    "",
    "X = '''\nfrom .workers.chancy_app import Chancy\n'''",
    "from .shipping.workers.chancy_router import workers_router as other",
    "health_router = None",
)
USES = (
    "app.include_router({0})",
    "app.include_router({0}, prefix='/x')  # {0}",
    "for each in ({0},): app.include_router(each)",
    "x = {0}",
    "async def f(): return await {0}()",
    "async def f(): return f'{{await {0}()}} {0}'",
    "async def f(a={0}): await a(\n)",
    "def g({0}): return {0}",
    "{0}.get('/')",
    "print('é', {0}); app.include_router({0})",
)


@st.composite
def files(draw: st.DrawFn) -> bytes:
    imports, names = [], []
    for old in draw(st.lists(st.sampled_from(sorted(OLD)), min_size=1, max_size=4)):
        taken = draw(st.lists(st.sampled_from(OLD[old]), min_size=1, unique=True))
        alias = draw(
            st.sampled_from(["", "", " as thing", " as billing_workers_router"])
        )
        names += [alias[4:] or taken[-1], *taken[:-1]]
        package = draw(st.sampled_from([".workers", "app.billing.workers", "workers"]))
        text = ", ".join(taken) + alias
        form = draw(
            st.sampled_from(
                [
                    "{0}",
                    "{0}",
                    "({0})",
                    "(\n    {0},\n)",
                    "(\n    {0},  # why\n)",
                    "{0}  # é",
                ]
            )
        )
        line = f"from {package}.{old} import {form.format(text)}"
        if draw(st.integers(0, 5)) == 0 and "\n" not in line:
            line = f"def late():\n    {line}\n    print({names[-1]})"
        imports.append(line)
    imports += draw(st.lists(st.sampled_from(OTHERS), max_size=6))
    if draw(st.booleans()):
        imports = draw(st.permutations(imports))
    uses = [
        draw(st.sampled_from(USES)).format(name)
        for name in names
        for _ in range(draw(st.integers(0, 2)))
    ]
    text = "\n".join([*imports, draw(st.sampled_from(["", "\n", "app = 1"])), *uses])
    newline = draw(st.sampled_from(["\n", "\n", "\r\n", "\r"]))
    return f"{text}{draw(st.sampled_from(['', chr(10)]))}".replace(
        "\n", newline
    ).encode()


@many_examples
@given(files())
def test_each_old_import_of_any_file_is_switched_or_reported(data: bytes) -> None:
    file = Path("/backend/app/billing/main.py")
    service = program.Service("billing", file.parent, file)
    found = program.find_old_imports(data, service)
    switched = switch(data, file)
    assert len(switched.lines) + len(switched.problems) == len(found)
    if switched.data is None:
        assert not switched.lines
        return
    again = program.switch_imports(switched.data, service)
    assert again.data is None
    assert len(again.problems) == len(switched.problems)
    assert comments(switched.data) == comments(data)
    assert loads(switched.data) == loads(data)


@st.composite
def broken_files(draw: st.DrawFn) -> tuple[Case, bytes]:
    """A file of the corpus after some mutations of its lines."""
    case = draw(st.sampled_from(CASES))
    lines = lines_of(case.source.encode())
    chance = draw(st.randoms(use_true_random=False))
    mutations = (delete, duplicate, swap, shift)
    for mutate in draw(st.lists(st.sampled_from(mutations), min_size=1, max_size=4)):
        if lines:
            mutate(lines, chance)
    return case, b"".join(lines)


@many_examples
@given(broken_files())
def test_a_broken_file_is_never_damaged_further(broken: tuple[Case, bytes]) -> None:
    case, data = broken
    file = Path("/backend", case.at)
    service = program.Service("billing", Path("/backend/app/billing"), file)
    switched = program.switch_imports(data, service)
    if switched.data is not None:
        assert comments(switched.data) == comments(data)
        assert loads(switched.data) == loads(data)
        assert program.switch_imports(switched.data, service).data is None


def test_a_switch_that_cannot_be_proven_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switching = sys.modules[program.switch_imports.__module__]
    rebuilt = switching.rebuilt

    def forgetful(*edits: Any) -> Any:
        new = rebuilt(*edits)
        return type(new)(new.lines[:-1], new.ends[:-1])

    case = case_named("router_and_health")
    file = backend(tmp_path, case)
    assert switch(case.source.encode(), file).data
    monkeypatch.setattr(switching, "rebuilt", forgetful)
    switched = switch(case.source.encode(), file)
    assert switched.data is None and switched.lines == []
    assert [each.partition(":")[0] for each in switched.problems] == ["3", "4"]


def comments(data: bytes) -> list[bytes]:
    return re.findall(rb"#[^\r\n]*", data)


TAKEN = {"get_chancy", "initialize_workers", "get_billing_chancy"}


def loads(data: bytes) -> list[str]:
    """The names that a file reads, in order, without the new arguments."""
    nodes = sorted(
        (node.lineno, node.col_offset, node.id)
        for node in ast.walk(ast.parse(data))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    )
    router = r"(billing_)?workers_router|thing"
    names = [re.sub(router, "router", name) for _, _, name in nodes]
    return [
        name for name in names if name not in {*TAKEN, "initialize_billing_workers"}
    ]


# ---------------------------------------------------------------------------------------
# The program
# ---------------------------------------------------------------------------------------
def case_named(name: str) -> Case:
    return next(case for case in CASES if case.name == name)


def options(file: Path, *more: str) -> list[str]:
    return [str(file), "--service=billing", "--package=app.billing", *more]


def test_an_update_switches_imports_and_reports_it(tmp_path: Path) -> None:
    case = case_named("router_and_health")
    file = backend(tmp_path, case)
    result = run_program(*options(file, "--task=update"))
    assert file.read_text() == case.to
    assert result.text == (
        "main.py now imports from chancy_runtime instead of workers/ (line 3, 4).\n"
    )
    assert run_program(*options(file, "--task=update")).text == ""
    assert run_program(*options(file, "--remove")).status == 0
    assert "workers_router" not in file.read_text()
    assert "health_router(get_chancy)" in file.read_text()


def test_an_update_switches_and_wires(tmp_path: Path) -> None:
    case = case_named("partly")
    file = backend(tmp_path, case)
    result = run_program(*options(file, "--task=update"))
    text = file.read_text()
    assert "from chancy_runtime import Settings\n" in text
    assert "app.include_router(workers_router(initialize_workers))\n" in text
    assert "main.py is wired" in result.text
    assert f"    {file}:{case.problems[0]}\n" in result.text


def test_a_backend_s_main_is_switched_and_not_wired(tmp_path: Path) -> None:
    case = case_named("partly")
    file = backend(tmp_path, case)
    result = run_program(*options(file, "--task=switch"))
    assert file.read_text() == case.to
    assert "is wired" not in result.text


def test_by_hand_imports_are_switched_only_after_the_update(tmp_path: Path) -> None:
    case = case_named("router_and_health")
    file = backend(tmp_path, case)
    old = file.parent / "workers" / "chancy_router.py"
    old.touch()
    assert run_program(*options(file)).status == ALREADY
    assert file.read_text() == case.source
    old.unlink()
    assert case.to.splitlines()[1] in run_program(*options(file, "--diff")).text
    assert run_program(*options(file, "--check")).status == 0
    assert file.read_text() == case.source
    assert run_program(*options(file)).status == ALREADY
    assert file.read_text() == case.to


def test_an_import_that_cannot_be_switched_is_reported_with_file_and_line(
    tmp_path: Path,
) -> None:
    case = case_named("the_module_itself")
    file = backend(tmp_path, case)
    result = run_program(*options(file))
    assert result.status == LEFT
    for line in case.problems:
        assert f"    {file}:{line}\n" in result.text
    assert file.read_text() == case.source
