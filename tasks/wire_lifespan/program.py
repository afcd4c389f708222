"""Wires a service's workers into its FastAPI app, or leaves the file as it is and says why.

    python -I tasks/wire_lifespan app/billing/main.py --service billing

If the app's lifespan has one `yield`, it is wrapped in `async with initialize_workers():`.
Any other app includes the workers' router, whose lifespan does the same. Nothing else in the
file changes: nothing is written unless the new syntax tree without the wiring equals the old
one. A second run changes nothing.

Imports of names that moved into the library chancy-runtime are switched with the same proof.

Exit status: 0 wired (--remove: wiring removed), 3 already wired, 4 left as it is, 5 nothing
to do, 2 wrong usage. With --check: 0 wired, 1 not wired. As a Copier task always 0.
"""

from __future__ import annotations

import argparse
import ast
import io
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from .disk import check_file, check_workers, write
from .edit import choose_edit, make
from .flat import keep_flat
from .imports import package_for, root_for
from .moved import MOVED
from .proof import prove
from .remove import take_out
from .service import Service, service_of, wired_elsewhere
from .source import Source, bound_names, read, row_of
from .switch import Switched, switch_imports
from .texts import (
    ALREADY,
    BUG,
    BY_HAND,
    ENTER,
    ENTERED,
    IMPORT,
    INCLUDE,
    LEFT,
    NOT_SWITCHED,
    ROUTER,
    STATUS,
    SWITCHED,
    WIRED,
    NotProven,
    Stop,
)


class Result(NamedTuple):
    """The result of a run: the outcome, the message, and the file's new content."""

    outcome: str
    text: str
    data: bytes


def plan(data: bytes, service: Service, *, remove: bool = False) -> Result:
    """Decides how to change a file; writes nothing."""
    source, name = None, service.file.name
    try:
        source, encoding = read(data)
        if remove:
            new = take_out(source, service)
            text = f"{name} no longer starts the workers of {service.name}."
        else:
            new, text = wire(source, service)
        return Result(WIRED, text, new.text.encode(encoding))
    except Stop as stop:
        text = str(stop)
        if stop.outcome == LEFT:
            text = f"{name} is left as it is: {text}."
        if stop.by_hand:
            text += f"\n{lines_by_hand(source, service)}"
        return Result(stop.outcome, text, data)
    except (NotProven, SyntaxError, RecursionError) as error:
        text = BUG.format(file=name, reason=error)
        return Result(LEFT, f"{text}\n{lines_by_hand(source, service)}", data)


def wire(source: Source, service: Service) -> tuple[Source, str]:
    """Returns the wired file and the message about it.

    Raises:
        Stop: It is already wired, or cannot be wired.
        NotProven: The edit would change more than it should.
    """
    name = service.file.name
    if uses := service.uses(source):
        raise Stop(ALREADY, f"{name} is already wired (line {row_of(uses[0])}).")
    if where := wired_elsewhere(source, service):
        raise Stop(ALREADY, f"{name} is already wired ({where}).")
    check_names(source, service)
    edit = choose_edit(source, service)
    new = make(source, edit)
    prove(source, new, edit, service)
    row = row_of(service.uses(new)[0])
    how = (
        f"the yield of its lifespan is inside {edit.name}()"
        if not edit.router
        else f"its app includes {edit.router}({edit.name}), which starts last and "
        "stops first"
    )
    note = root_for(source, service)[1]
    text = f"{name} is wired: {how} (line {row}).{note}{edit.note}"
    return new, text


def check_names(source: Source, service: Service) -> None:
    """Makes sure that the file does not use the workers without importing them.

    Raises:
        Stop: It does, so it cannot run.
    """
    bound = {name for name, _ in bound_names(source)} | {*source.origins}
    for node in source.nodes:
        for form in (ENTERED, ROUTER):
            if isinstance(node, ast.Name) and node.id == form.name not in bound:
                module = form.module
                if form is ENTERED:
                    module = f"{package_for(source, service)}.{module}"
                raise Stop(
                    LEFT,
                    f"line {node.lineno} uses {form.name}, which it does not import: "
                    f"add {IMPORT.format(module=module, name=form.name)}",
                )


def lines_by_hand(source: Source | None, service: Service) -> str:
    package = package_for(source, service) if source else ".workers"
    return BY_HAND.format(
        enter=ENTER.format(name=ENTERED.name),
        import_entered=IMPORT.format(
            module=f"{package}.{ENTERED.module}", name=ENTERED.name
        ),
        include=INCLUDE.format(app="app", router=ROUTER.name, name=ENTERED.name),
        import_router=IMPORT.format(module=ROUTER.module, name=ROUTER.name),
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Wires one file; returns the exit status."""
    options = parse(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if not options.task:
        return run(options)
    try:
        run(options)
    except Exception as error:  # A task that fails leaves Copier's update half applied.
        print(BUG.format(file=options.file, reason=repr(error)), file=sys.stderr)
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    assert __doc__
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="the file with the FastAPI app")
    parser.add_argument("--service", required=True, help="the service's name")
    parser.add_argument("--package", default="", help="import path of its folder")
    parser.add_argument("--app", default="", help="the app, if there are several")
    does = parser.add_mutually_exclusive_group()
    does.add_argument(
        "--diff", action="store_true", help="show the edit, write nothing"
    )
    does.add_argument("--check", action="store_true", help="exit with 1 if not wired")
    does.add_argument("--remove", action="store_true", help="remove the wiring")
    parser.add_argument(
        "--task", choices=["copy", "update", "switch"], help=argparse.SUPPRESS
    )
    parser.add_argument(
        "--package-file", choices=["old", "new"], help=argparse.SUPPRESS
    )
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> int:
    """Does what the options ask for and prints the result."""
    service = service_of(options.file, options.service, options.package, options.app)
    switched = Switched(None, [], [])
    try:
        check_file(service, options.file)
        data = options.file.read_bytes()
        if is_switch_due(options, service):
            switched = switch_imports(data, service)
        if options.task == "copy" and options.package_file == "new":
            keep_flat(data, service)
        result = Result(ALREADY, "", switched.data or data)
        if options.task != "switch":
            result = plan(result.data, service, remove=options.remove)
        if result.data != data and options.diff:
            show_diff(options.file, data, result.data)
        elif result.data != data and not options.check:
            if result.outcome == WIRED and not options.remove:
                check_workers(service)
            write(options.file, data, result.data)
    except Stop as stop:
        text = str(stop)
        if stop.outcome == LEFT:
            text = f"{options.file} is left as it is: {text}."
        result = Result(stop.outcome, text, b"")
        switched = Switched(None, [], switched.problems)
    except OSError as error:
        text = f"{options.file} is left as it is: it cannot be read or written: {error}"
        result = Result(LEFT, text, b"")
        switched = Switched(None, [], switched.problems)
    if options.check:
        return report_check(options.file, result)
    report_switch(options, switched)
    nothing_new = options.task in ("update", "switch") and result.outcome == ALREADY
    if not (nothing_new or options.diff and result.outcome == WIRED):
        print(result.text)
    return STATUS[result.outcome]


def is_switch_due(options: argparse.Namespace, service: Service) -> bool:
    """Whether the moved modules are gone from this service, or this update removes them."""
    if options.check or options.remove:
        return False
    workers = service.folder / "workers"
    return options.task in ("update", "switch") or not any(
        (workers / f"{module}.py").exists() for module in MOVED
    )


def report_switch(options: argparse.Namespace, switched: Switched) -> None:
    if switched.lines and not options.diff:
        rows = ", ".join(map(str, switched.lines))
        print(SWITCHED.format(file=options.file.name, rows=rows))
    if switched.problems:
        print(NOT_SWITCHED.format(file=options.file))
        for problem in switched.problems:
            print(f"    {options.file}:{problem}")


def report_check(file: Path, result: Result) -> int:
    if result.outcome == ALREADY:
        print(result.text)
        return 0
    print(f"{file} is not wired." if result.outcome == WIRED else result.text)
    return 1


def show_diff(file: Path, before: bytes, after: bytes) -> None:
    """Prints a unified diff without line endings."""
    import difflib  # Imported here, because only --diff needs it.

    old, new = (
        re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", data.decode("utf-8", "replace"))
        for data in (before, after)
    )
    for line in difflib.unified_diff(old, new, f"a/{file}", f"b/{file}"):
        text = line.rstrip("\r\n")
        print(text if text != line else f"{text}\n\\ No newline at end of file")
