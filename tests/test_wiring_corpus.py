"""Typical files of teams are wired without other changes, or left alone for the right reason."""

import ast
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .support import TEMPLATE, environment, run
from .wiring_cases import (
    ALREADY,
    CASES,
    FAILING_STUB,
    FAILURE,
    STATUS,
    WIRED,
    WIRED_CASES,
    Backend,
    Case,
    Run,
    difference,
    tree,
    tree_without_wiring,
)

Events = list[list[Any]]
Boot = Callable[[Backend], Events]

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.case)
every_wired_case = pytest.mark.parametrize(
    "case", WIRED_CASES, ids=lambda case: case.case
)


@pytest.fixture(scope="session")
def boot() -> Iterator[Boot]:
    """Boots a backend's app and stops it again; returns the events between."""
    server = subprocess.Popen(
        [sys.executable, "-W", "ignore", TEMPLATE / "tests" / "wiring_boots.py"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert server.stdin and server.stdout
    requests, answers = server.stdin, server.stdout

    def ask(backend: Backend) -> Events:
        print(json.dumps(backend.boot_request()), file=requests, flush=True)
        events: Events = json.loads(answers.readline())
        return events

    yield ask
    requests.close()
    assert server.wait(60) == 0


@pytest.fixture
def wired(case: Case, tmp_path: Path) -> Backend:
    """A backend whose file the program has wired."""
    return wired_backend(tmp_path, case)


def wired_backend(folder: Path, case: Case, *stub: str) -> Backend:
    backend = Backend(folder, case, *stub)
    run = backend.wire()
    assert run.status == WIRED, run.text
    return backend


def was_as_expected(case: Case, backend: Backend, run: Run) -> bool:
    """Whether the outcome, the form of the wiring and the reason match the case."""
    return (
        run.status == STATUS[case.expected]
        and (form_of(case, backend) == case.expected or run.status != WIRED)
        and (case.because in run.text or case.expected != "left")
    )


def form_of(case: Case, backend: Backend) -> str:
    added = "\n".join(line.decode("latin-1") for line in new_lines(case, backend))
    forms = {"async with ": "yield", ".include_router(": "router"}
    return " and ".join(form for start, form in forms.items() if start in added)


def new_lines(case: Case, backend: Backend) -> list[bytes]:
    """The lines that the wiring added; makes sure that the other lines are unchanged."""
    added, moved = difference(case.source, backend.bytes)
    assert moved <= (rows_of_yields(case) if case.expected == "yield" else 0)
    return added


def rows_of_yields(case: Case) -> int:
    """The number of lines of the longest yield in the file."""
    nodes = ast.walk(ast.parse(case.source))
    yields = [node for node in nodes if isinstance(node, ast.Yield)]
    return max((node.end_lineno or node.lineno) - node.lineno + 1 for node in yields)


# ---------------------------------------------------------------------------------------
# The file
# ---------------------------------------------------------------------------------------
@every_case
def test_each_file_has_the_expected_outcome(case: Case, tmp_path: Path) -> None:
    backend = Backend(tmp_path, case)
    run = backend.wire()
    assert run.status == STATUS[case.expected], f"{case.shape}:\n{run.text}"
    if run.status == WIRED:
        assert form_of(case, backend) == case.expected, backend.bytes.decode("latin-1")
        assert tree_without_wiring(case.source, backend.bytes) == tree(case.source)
    else:
        assert backend.bytes == case.source
        assert case.because in run.text


@every_case
def test_diff_and_check_write_nothing(case: Case, tmp_path: Path) -> None:
    backend = Backend(tmp_path, case)
    before = contents(tmp_path)
    diff, check = backend.wire("--diff"), backend.wire("--check")
    assert contents(tmp_path) == before
    assert check.status == (0 if case.expected == "already" else 1), check.text
    is_wired = case.expected in ("yield", "router")
    assert ("\n+++ " in f"\n{diff.text}") == is_wired, diff.text


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@every_wired_case
def test_the_diff_shows_the_lines_that_are_then_written(
    case: Case, tmp_path: Path
) -> None:
    backend = Backend(tmp_path, case)
    shown = backend.wire("--diff").text
    assert backend.wire().status == WIRED
    marked = [line for line in shown.splitlines() if line.startswith("+")]
    for line in filter(bytes.strip, new_lines(case, backend)):
        assert any(line.decode("latin-1").strip() in each for each in marked), shown


@every_wired_case
def test_a_second_run_changes_nothing(wired: Backend) -> None:
    before = wired.bytes
    again = wired.wire()
    assert again.status == ALREADY, again.text
    assert wired.bytes == before
    assert wired.wire("--check").status == 0


@every_wired_case
def test_removing_the_wiring_restores_every_byte(wired: Backend, case: Case) -> None:
    removed = wired.wire("--remove")
    assert removed.status == WIRED, removed.text
    assert wired.bytes == case.source


@pytest.mark.parametrize("length", [79, 100])
def test_the_wiring_is_recognized_in_reformatted_files(
    tmp_path: Path, length: int
) -> None:
    folders = {case: tmp_path / case.case for case in WIRED_CASES if is_utf_8(case)}
    backends = [wired_backend(folder, case) for case, folder in folders.items()]
    ruff = [sys.executable, "-m", "ruff", "format", "--isolated", "--no-cache"]
    run(*ruff, f"--line-length={length}", ".", cwd=tmp_path)
    for backend in backends:
        formatted = backend.bytes
        again = backend.wire()
        assert again.status == ALREADY, f"{backend.case.case}: {again.text}"
        assert backend.bytes == formatted
        removed = backend.wire("--remove")
        assert removed.status == WIRED, f"{backend.case.case}: {removed.text}"
        assert tree(backend.bytes) == tree(backend.case.source), backend.case.case


def is_utf_8(case: Case) -> bool:
    """Whether ruff can read the file."""
    try:
        return bool(case.source.decode())
    except UnicodeDecodeError:
        return False


@every_wired_case
def test_the_import_is_in_the_files_own_style(wired: Backend, case: Case) -> None:
    added = b" ".join(new_lines(case, wired)).decode("latin-1").split()
    expected = case.imports or "chancy_initialization import initialize_workers"
    unwrapped = " ".join(word for word in added if word not in "()").replace(", ", " ")
    assert expected in unwrapped.rstrip(","), unwrapped
    is_there = "chancy_runtime" in unwrapped
    assert is_there == (case.expected == "router" and bool(case.library))
    assert case.library in unwrapped or not is_there


@every_wired_case
def test_sorted_imports_stay_sorted(wired: Backend, case: Case) -> None:
    original = wired.file.with_name("original.py")
    original.write_bytes(case.source)
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--no-cache"]
    options = ["--select=I", "--output-format=concise", "--config"]
    options.append(f'src = ["{case.root}"]')
    output = run(
        *ruff, *options, wired.file, original, cwd=wired.folder, check=False
    ).stdout
    assert f"{case.at}:" not in output or "original.py:" in output, output


# ---------------------------------------------------------------------------------------
# The service
# ---------------------------------------------------------------------------------------
@every_wired_case
def test_workers_start_last_and_stop_first(
    case: Case, tmp_path: Path, boot: Boot
) -> None:
    before = boot(Backend(tmp_path / "before", case))
    after = boot(wired_backend(tmp_path / "after", case))
    assert [kind for kind, _ in before].count("up") == 1, before
    assert {"failed", "raised", "killed"}.isdisjoint(kind for kind, _ in before), before
    up = [kind for kind, _ in before].index("up")
    assert after == [
        *before[:up],
        ["record", "workers started"],
        before[up],
        ["record", "workers stopped"],
        *before[up + 1 :],
    ]


@every_wired_case
def test_a_failed_start_of_the_workers_stops_the_service_with_that_error(
    case: Case, tmp_path: Path, boot: Boot
) -> None:
    events = boot(wired_backend(tmp_path, case, FAILING_STUB))
    kinds = [kind for kind, _ in events]
    assert "up" not in kinds and "killed" not in kinds, events
    failures = "".join(str(value) for kind, value in events if kind == "failed")
    assert FAILURE in failures, events


def test_nearly_all_files_are_wired_or_left_for_the_right_reason(
    tmp_path: Path,
) -> None:
    """The promise in numbers: at least 97 of 100 as expected, none damaged."""
    wrong, damaged = [], []
    for case in CASES:
        backend = Backend(tmp_path / case.case, case)
        run = backend.wire()
        try:
            right = was_as_expected(case, backend, run)
            changed = backend.bytes != case.source
            ok = changed == (run.status == WIRED)
            if changed:
                ok &= tree_without_wiring(case.source, backend.bytes) == tree(
                    case.source
                )
        except (AssertionError, SyntaxError):
            right = ok = False
        if not right:
            wrong.append(case.case)
        if not ok:
            damaged.append(case.case)
    assert not damaged
    assert len(wrong) <= 0.03 * len(CASES), wrong
