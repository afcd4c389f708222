"""`chancy-workers check`: finds services that are broken or behind."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from .answers import Project, Unreadable, choose, rendered_answers
from .checks import CHECKS, Finding, Subject, has_tables_to_migrate, is_behind
from .connections import sum_of
from .renewal import absent, scratch_folder
from .repository import Refused, top_of
from .template import Template, template_of


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "check",
        help="show which services are behind or broken",
        description=(
            "Checks services that this template rendered and changes nothing. Exit "
            "status: 0 nothing is broken, 1 something is broken, 2 bad usage."
        ),
    )
    parser.add_argument(
        "folders",
        metavar="FOLDER",
        nargs="*",
        type=Path,
        help="such as app/billing; by default every service of the repository",
    )
    parser.add_argument(
        "--database",
        action="store_true",
        help="also check the database that WORKERS_DATABASE_URL or the secret names",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="report a service behind the newest release as an error, not as a notice",
    )
    parser.add_argument(
        "--format",
        choices=("text", "json", "github"),
        default="text",
        help="github: annotations in a pull request",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    try:
        projects = choose(arguments.folders)
    except Refused as refused:
        print(f"chancy-workers check: {refused}", file=sys.stderr)
        return 1
    with scratch_folder() as scratch:
        findings = list(
            _check_all(projects, scratch, arguments.strict, arguments.database)
        )
    _print(findings, len(projects), arguments.format)
    if arguments.format == "text":
        _say_connections(projects, {finding.problem for finding in findings})
        if findings:
            _say_from_where(projects)
    return 1 if _errors(findings) else 0


def _errors(findings: Sequence[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.level == "error"]


def _check_all(
    projects: Sequence[Project | Unreadable],
    scratch: Path,
    strict: bool,
    database: bool,
) -> Iterator[Finding]:
    templates: dict[str, Template | Refused] = {}
    for number, project in enumerate(projects):
        if isinstance(project, Unreadable):
            yield Finding(project.name, project.name, 1, project.reason, project.mend)
            continue
        if not project.service.is_dir():
            yield Finding(project.name, project.path, 1, *absent(project))
            continue
        folder = scratch / str(number)
        folder.mkdir()
        subject, refused = _subject_of(project, templates, folder)
        for reason in refused:
            yield subject.found(
                project.file,
                reason,
                "correct that first, because not everything could be checked",
            )
        yield from is_behind(subject, "error" if strict else "notice")
        for check in CHECKS:
            yield from check(subject)
        if database:
            yield from has_tables_to_migrate(subject)


def _subject_of(
    project: Project, templates: dict[str, Template | Refused], scratch: Path
) -> tuple[Subject, list[str]]:
    """A project with its template and a fresh render, and why either of them is missing."""
    refused = []
    answers, rendered = {}, None
    try:
        answers = rendered_answers(project)
    except Refused as reason:
        refused.append(f"it cannot be rendered: {reason}")
    source = str(project.answers.get("_src_path"))
    if source not in templates:
        try:
            templates[source] = Template(template_of(project), scratch)
        except Refused as reason:
            templates[source] = reason
    template = templates[source]
    if isinstance(template, Refused):
        refused.append(f"the template cannot be read: {template}")
        return Subject(project, answers, None, None), refused
    if answers:
        try:
            rendered = template.render(project, answers, scratch)
        except Refused as reason:
            refused.append(f"it cannot be rendered: {reason}")
    return Subject(project, answers, rendered, template), refused


def _print(findings: Sequence[Finding], services: int, format: str) -> None:
    if format == "json":
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
        return
    for each in findings:
        if format == "github":
            text = _escape(f"{each.problem}: {each.mend}")
            title = _escape(each.service, ":,")
            file = _escape(each.file, ":,")
            place = f"file={file},line={each.line},title={title}"
            print(f"::{each.level} {place}::{text}")
        else:
            notice = "notice: " if each.level == "notice" else ""
            print(f"{each.file}:{each.line}: {notice}{each.problem}: {each.mend}")
    if format == "text" and not _errors(findings):
        are = "services are" if services > 1 else "service is"
        print(f"{services} {are} {'whole' if findings else 'current and whole'}")


def _say_connections(
    projects: Sequence[Project | Unreadable], problems: Collection[str]
) -> None:
    """Reports how many connections each service needs, unless a finding says it already."""
    for project in projects:
        if isinstance(project, Project) and project.service.is_dir():
            total = sum_of(project)
            if total.is_known and str(total) not in problems:
                fits = total.size() <= total.limit
                print(
                    f"chancy-workers check: {project.name} {total}"
                    + ("" if fits else ' ("Connections" in docs/running.md)'),
                    file=sys.stderr,
                )


def _say_from_where(projects: Sequence[Project | Unreadable]) -> None:
    """Reports the folder of the paths and commands, if it is not the current one."""
    tops = {
        project.top if isinstance(project, Project) else top_of(Path.cwd())
        for project in projects
    }
    if tops != {Path.cwd()}:
        shown = " and ".join(shlex.quote(os.path.relpath(top)) for top in sorted(tops))
        print(
            f"chancy-workers check: paths and commands are from {shown}: cd there first",
            file=sys.stderr,
        )


def _escape(text: str, more: str = "") -> str:
    """Escapes the text of a GitHub workflow command, or with `:,` a property of it."""
    for character in "%\r\n" + more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text
