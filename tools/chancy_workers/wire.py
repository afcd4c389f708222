"""`chancy-workers wire`: runs Copier's wiring task by hand, for one file."""

import argparse
import fnmatch
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml

from .source import task

MODES = ("diff", "check", "remove")
OPTIONS = ("service", "package", "app")
# How many levels below the backend's root a service's folder can be.
DEPTH = 5


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "wire",
        help="wire the workers into the file with the FastAPI app",
        description=(
            "Wires the workers of a service into the file with its FastAPI app, like "
            "`copier copy`. Exit status: 0 wired (or removed), 1 not wired (--check), 2 bad "
            "usage, 3 already wired, 4 left as it is, 5 nothing to do."
        ),
    )
    parser.add_argument("file", metavar="FILE", help="such as app/billing/main.py")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--diff", action="store_true", help="show the change only")
    what.add_argument(
        "--check", action="store_true", help="only check whether it is wired"
    )
    what.add_argument("--remove", action="store_true", help="remove the wiring")
    parser.add_argument(
        "--service",
        metavar="NAME",
        help="the service, if several have their app in FILE",
    )
    parser.add_argument("--app", metavar="NAME", help="the app, if FILE has several")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
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
            *(f"--{key}={named[key]}" for key in OPTIONS if named.get(key)),
            "--",
            str(file),
        ]
    )
    return int(status)


def services_of(file: Path) -> list[dict[str, str]]:
    """Returns the answers of the services that have their app in a file.

    These services name the file in their answers. If none does, it is the service in whose
    folder the file is.
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
    """Yields the folder of each service and the answers from which it was rendered."""
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
            except yaml.YAMLError:  # For example with a conflict from an update.
                continue
            if not isinstance(answers, dict) or "database_secret" not in answers:
                continue  # The answers to another template.
            if answers["scope"] == "backend":
                package = f"app.{answers['service']}"
                yield (
                    Path(top, "app", answers["service"]),
                    answers | {"package": package},
                )
            else:
                yield Path(top), answers
