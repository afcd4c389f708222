"""`chancy-workers add-job`: adds a job to a service, registered and with a test."""

import argparse
import sys
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

from .answers import Project, find
from .renewal import CURRENT, Renewal, renew
from .repository import Refused


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "add-job",
        help="add a job to a service",
        description=(
            "Adds a job to the answers of a service and renders it from the service's current "
            "release. Exit status: 0 added, 1 added with conflicts or not added, 2 bad usage."
        ),
    )
    parser.add_argument("folder", metavar="FOLDER", help="such as app/billing")
    parser.add_argument("name", metavar="NAME", help="such as send_digest")
    parser.add_argument(
        "--schedule", metavar="CRON", help='runs the job by itself: "0 7 * * mon-fri"'
    )
    parser.add_argument(
        "--timezone", metavar="AREA/CITY", help="of the schedule; UTC by default"
    )
    parser.add_argument("--queue", metavar="NAME", help="a queue of the service")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    try:
        _check_timezone(arguments.timezone)
        project = find(Path(arguments.folder))
        _check_name(project, arguments.name)
        renewal = renew(project, {"jobs": _jobs_with(project, arguments)}, CURRENT)
    except Refused as refused:
        print(f"chancy-workers add-job: {refused}", file=sys.stderr)
        return 1
    print(renewal.messages, end="")
    _report(project, arguments.name, renewal)
    return 1 if renewal.conflicts else 0


def _check_timezone(name: str | None) -> None:
    """Refuses an unknown time zone; the template itself cannot check this."""
    known = available_timezones()
    if name and known and name not in known:
        raise Refused(
            f"there is no time zone {name}: write a name of the IANA database, such as "
            "Europe/London"
        )


def _check_name(project: Project, name: str) -> None:
    """Refuses a job whose package would hide one of the team's modules."""
    module = project.service / "workers" / f"{name}.py"
    if module.is_file():
        raise Refused(
            f"{module.relative_to(project.top)} exists, and the job's package {name} would "
            "hide it: give the job or the module another name"
        )


def _jobs_with(project: Project, arguments: argparse.Namespace) -> list[Any]:
    options = {
        key: value
        for key in ("queue", "schedule", "timezone")
        if (value := getattr(arguments, key)) is not None
    }
    job = {"name": arguments.name, **options} if options else arguments.name
    jobs: list[Any] = project.answers["jobs"]
    # An update refuses jobs that are not a list, with the reason.
    return [*jobs, job] if isinstance(jobs, list) else jobs


def _report(project: Project, name: str, renewal: Renewal) -> None:
    renewal.show_files()
    worker = (project.service / "workers" / name / "worker.py").relative_to(project.top)
    print(
        f"Write the job in {worker}; its test is "
        f"{worker.parents[1] / 'tests' / f'test_job_{name}.py'}."
    )
