"""`chancy-workers remove-job`: removes a job from a service, with its files and its test."""

import argparse
import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruff import find_ruff_bin  # type: ignore[import-untyped]

from .answers import Project, find
from .renewal import CURRENT, Renewal, renew
from .repository import Refused, git, names
from .statements import merge_statements
from .template import Template, template_of


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "remove-job",
        help="remove a job from a service",
        description=(
            "Removes a job from the answers of a service, with its folder, its test and "
            "its schedule. Everything must be committed, so that nothing is lost. Exit "
            "status: 0 removed, 1 removed with conflicts or not removed, 2 bad usage."
        ),
    )
    parser.add_argument("folder", metavar="FOLDER", help="such as app/billing")
    parser.add_argument("name", metavar="NAME", help="such as send_digest")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    name = arguments.name
    try:
        project = find(Path(arguments.folder))
        left = _jobs_without(project, name)
        renewal = renew(
            project,
            {"jobs": left},
            CURRENT,
            lambda updated: _take_away(name, project, updated),
        )
    except Refused as refused:
        print(f"chancy-workers remove-job: {refused}", file=sys.stderr)
        return 1
    _report(project, name, renewal)
    return 1 if renewal.conflicts else 0


def _jobs_without(project: Project, name: str) -> Any:
    """The answer `jobs` without a job; only the job's files may be left to remove."""
    jobs = project.answers["jobs"]
    worker = project.service / "workers" / name / "worker.py"
    known = [job["name"] for job in project.jobs]
    if name not in known and not (name.isidentifier() and worker.is_file()):
        raise Refused(
            f"there is no job {name} in {project.name}: name one of "
            f"{', '.join(known) or 'its jobs (it has none)'}"
        )
    if not isinstance(jobs, list):
        return jobs  # An update refuses it, with the reason.
    return [
        job
        for job in jobs
        if (job.get("name") if isinstance(job, dict) else job) != name
    ]


def _take_away(name: str, project: Project, updated: Project) -> None:
    """Deletes a job's files in the scratch copy, and its route in main.py.

    Args:
        updated: The project in the scratch copy, after Copier has run there.

    Raises:
        Refused: Another file in the repository uses the job.
    """
    workers = updated.service / "workers"
    test = workers / "tests" / f"test_job_{name}.py"
    test.unlink(missing_ok=True)
    shutil.rmtree(workers / name, ignore_errors=True)
    in_copy = {*updated.service.rglob("*.py"), updated.main}
    if any(_uses(updated, updated.main, name)):
        _take_out_of_main(project, updated)
    uses = [
        f"{os.path.relpath(path, updated.top)}:{line}"
        for path in sorted(in_copy)
        for line in _uses(updated, path, name)
    ]
    ours = {os.path.relpath(path, updated.top) for path in in_copy}
    job = (project.service / "workers" / name).relative_to(project.top).as_posix()
    its_test = (test.relative_to(updated.top)).as_posix()
    listed = ("ls-files", "-z", "-co", "--exclude-standard", "--", "*.py")
    for other in sorted({*names(git(project.top, *listed))} - ours - {its_test}):
        if not other.startswith(f"{job}/"):
            uses += [
                f"{other}:{line}" for line in _uses(project, project.top / other, name)
            ]
    if uses:
        raise Refused(
            f"{', '.join(uses)} {'uses' if len(uses) == 1 else 'use'} the job {name}: "
            "remove that, commit, then run this again"
        )


def _uses(project: Project, path: Path, name: str) -> Iterator[int]:
    """The lines of a file that import a job or mention its module."""
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    module = f"{project.package}.workers.{name}"
    if name not in text:
        return
    whole = re.compile(rf"(?<![\w.]){re.escape(module)}\b")
    lines = {
        number for number, line in enumerate(text.splitlines(), 1) if whole.search(line)
    }
    root = project.service.parents[project.package.count(".")]
    package = ".".join(Path(os.path.relpath(path, root)).parent.parts)
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        tree = ast.Module([], [])
    for node in ast.walk(tree):
        if not isinstance(node, ast.ImportFrom):
            continue
        start = package.split(".")[: 1 - node.level or None] if node.level else []
        base = ".".join([*start, *filter(None, [node.module])])
        found = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        if any(each == module or each.startswith(f"{module}.") for each in found):
            lines.add(node.lineno)
    yield from sorted(lines)


def _take_out_of_main(project: Project, updated: Project) -> None:
    """Merges into main.py what the template would write differently without the job.

    If that is impossible, main.py stays as it is and is reported as a file that uses the job.
    """
    if updated.answers.get("main", "main.py") != "main.py":
        return
    scratch = updated.top.parent / "renders"
    scratch.mkdir()
    template = Template(template_of(project), scratch)
    before = {**updated.answers, "jobs": project.answers["jobs"]}
    rendered = []
    for name, answers in (("before", before), ("after", updated.answers)):
        (scratch / name).mkdir()
        folder = template.render(
            updated, answers, scratch / name, beside_its_main=False
        )
        rendered.append(folder / updated.main.relative_to(updated.folder))
    files = (updated.main, *rendered)
    try:
        text = merged(*(path.read_bytes().decode() for path in files))
    except (SyntaxError, UnicodeDecodeError):
        return
    if text is not None:
        updated.main.write_bytes(text.encode())


def merged(mine: str, before: str, after: str) -> str | None:
    """The team's file with the change of the render, if it has every name that it uses."""
    flaws = _flaws(mine)
    whole = merge_statements(mine, before, after, imports=True)
    if _flaws(whole) <= flaws:
        return whole
    # The team uses what the render imported, or imports it in lines of its own.
    routes = merge_statements(mine, before, after, imports=False)
    if not flaws:
        routes = _ruff(routes, "--select=F401", "--fix").decode()
    return routes if _flaws(routes) <= flaws else None


def _flaws(text: str) -> set[str]:
    """The undefined names and exports and the unused imports that ruff finds."""
    found = _ruff(text, "--select=F401,F821,F822", "--output-format=json")
    return {each["message"] for each in json.loads(found)}


def _ruff(text: str, *arguments: str) -> bytes:
    """The output of `ruff check`; with --fix that is the text, with its line endings."""
    command = [find_ruff_bin(), "check", "--isolated", "--quiet", "--no-cache"]
    return subprocess.run(
        [*command, *arguments, "-"], input=text.encode(), capture_output=True
    ).stdout


def _report(project: Project, name: str, renewal: Renewal) -> None:
    for line in renewal.messages.splitlines():
        # An update keeps the job's files and says so, in other words in older releases, but
        # this command deletes them.
        if not line.startswith(f"The job {name} "):
            print(line)
    folder = project.service / "workers" / name
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    renewal.show_files()
    if folder.is_dir():
        shown = folder.relative_to(project.top)
        print(f"{shown} stays, because git does not have the files that are left in it")
    print(
        f"The job {name} was removed from {project.name}; git still has its files. Queued "
        "jobs of it fail once this is deployed: deploy when none is queued."
    )
