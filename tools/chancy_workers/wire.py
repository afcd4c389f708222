"""`chancy-workers wire`: what Copier's task does, for one file and by hand."""

import argparse
import fnmatch
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from .source import task

MODES = ("diff", "check", "remove")
TOLD = ("service", "package", "app")
# How far below the backend's root a service's folder can be.
DEPTH = 5


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "wire",
        help="wire the workers into the file with the FastAPI app",
        description=(
            "Wires the workers of a service into the file with its FastAPI app, as "
            "`copier copy` does. Exit status: 0 wired (or removed), 1 --check found it not "
            "wired, 2 bad usage, 3 wired already, 4 left alone, 5 nothing to do."
        ),
    )
    parser.add_argument("file", metavar="FILE", help="such as app/billing/main.py")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--diff", action="store_true", help="show the change only")
    what.add_argument(
        "--check", action="store_true", help="only tell whether it is wired"
    )
    what.add_argument("--remove", action="store_true", help="take the wiring out again")
    parser.add_argument(
        "--service", metavar="NAME", help="whose workers, when several are meant"
    )
    parser.add_argument("--app", metavar="NAME", help="the app, where FILE has several")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Returns the exit status of the program."""
    file = Path(arguments.file)
    services = [
        service
        for service in services_of(file)
        if arguments.service in (None, service["service"])
    ]
    if len(services) > 1:
        names = ", ".join(sorted(service["service"] for service in services))
        print(
            f"{file} has the app of several services: add --service with one of {names}",
            file=sys.stderr,
        )
        return 2
    modes = [name for name in MODES if getattr(arguments, name)]
    name = arguments.service or file.absolute().parent.name
    named = {
        "service": name,
        **(services[0] if services else {}),
        **({"app": arguments.app} if arguments.app else {}),
    }
    status = task("wire_lifespan").main(
        [
            *(f"--{mode}" for mode in modes),
            *(f"--{key}={named[key]}" for key in TOLD if named.get(key)),
            "--",
            str(file),
        ]
    )
    return int(status)


def services_of(file: Path) -> list[dict[str, str]]:
    """Returns the answers of the services that have their app in a file.

    Those that name it; where none does, those of the service whose folder it is in.
    """
    file = file.absolute()
    backend = next(
        (folder for folder in file.parents if (folder / ".git").exists()),
        file.parents[min(2, len(file.parents) - 1)],
    )
    services = list(_answers_below(backend))
    naming = [
        answers
        for folder, answers in services
        if (folder / answers.get("main", "main.py")).resolve() == file.resolve()
    ]
    around = [
        (folder, answers) for folder, answers in services if folder in file.parents
    ]
    nearest = max(around, key=lambda each: len(each[0].parts), default=None)
    return naming or ([nearest[1]] if nearest else [])


def _answers_below(backend: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Yields the folder of each service and the answers that it was rendered from."""
    for top, folders, files in os.walk(backend):
        is_deep = len(Path(top).relative_to(backend).parts) >= DEPTH
        folders[:] = [
            name
            for name in folders
            if not is_deep and not name.startswith(".") and name != "node_modules"
        ]
        for name in fnmatch.filter(files, ".copier-answers*.yml"):
            try:
                answers = yaml.safe_load(Path(top, name).read_text())
            except yaml.YAMLError:  # As an update leaves it, with a conflict.
                continue
            if not isinstance(answers, dict) or "database_secret" not in answers:
                continue  # Those to another template.
            if answers["scope"] == "backend":
                package = f"app.{answers['service']}"
                yield (
                    Path(top, "app", answers["service"]),
                    answers | {"package": package},
                )
            else:
                yield Path(top), answers
