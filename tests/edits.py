"""Edits of teams in a rendered service; the first argument is the service's folder."""

import re
import sys
from pathlib import Path

import yaml

from .releases import INSTANCE
from .support import run

CRON_JOB = """\
    CronJob(
        job={name},
        cron="15 3 * * *",
        timezone="UTC",
    ),
]
"""
WORKER = '''\
"""The {name} job."""

from chancy import job


@job(queue="default")
async def {name}(*, note: str = "cron") -> None:
    """Written by the team."""
'''


def _initialization(service: Path) -> Path:
    return service / "workers" / "chancy_initialization.py"


def _replace(path: Path, pattern: str, replacement: str) -> None:
    """Replaces the first match; a file without a match stays as it is."""
    path.write_text(re.sub(pattern, replacement, path.read_text(), count=1))


def change_pool_size(service: Path, minimum: int, maximum: int) -> None:
    path = _initialization(service)
    _replace(path, r"MIN_POOL_SIZE = \d+", f"MIN_POOL_SIZE = {minimum}")
    _replace(path, r"MAX_POOL_SIZE = \d+", f"MAX_POOL_SIZE = {maximum}")


def change_queue(service: Path, concurrency: int) -> None:
    _replace(_initialization(service), r"concurrency=\d+", f"concurrency={concurrency}")


def add_cron_job(service: Path, name: str) -> None:
    """Adds a job with a schedule by hand, without the answers."""
    path = _initialization(service)
    (path.parent / name).mkdir(exist_ok=True)
    (path.parent / name / "__init__.py").touch()
    (path.parent / name / "worker.py").write_text(WORKER.format(name=name))
    imported = f"from .{name}.worker import {name}\n"
    _replace(path, r"\nDATABASE_SECRET = ", rf"{imported}\g<0>")
    _replace(
        path, r"(?<=CronJob\()(?s:(.*?))\n\]\n", rf"\1\n{CRON_JOB}".format(name=name)
    )


def add_plugin(service: Path) -> None:
    """Adds one of Chancy's plugins by hand."""
    path = _initialization(service)
    _replace(
        path,
        r"\nfrom contextlib import asynccontextmanager\n",
        r"\g<0>\nimport chancy.plugins.metrics\n",
    )
    _replace(path, r"( +)Cron\(\),\n", r"\g<0>\1chancy.plugins.metrics.Metrics(),\n")


def rewrite_job(service: Path, job: str, text: str) -> None:
    path = service / "workers" / job / "worker.py"
    if path.is_file():
        path.write_text(f'{path.read_text()}    assert note != "{text}"\n')


def rename_job(service: Path, old: str, new: str) -> None:
    """Renames a job by hand: its folder, its function, its test and its imports."""
    folder = service / "workers" / old
    if not folder.is_dir() or folder.with_name(new).exists():
        return
    folder.rename(folder.with_name(new))
    for path in [*service.rglob("*.py")]:
        text = path.read_text()
        if re.search(rf"\b{old}\b", text):
            path.write_text(re.sub(rf"\b{old}\b", new, text))
    test = service / "workers" / "tests" / f"test_job_{old}.py"
    if test.is_file():
        test.rename(test.with_name(f"test_job_{new}.py"))


def rewrite_main(service: Path) -> None:
    path = service / "main.py"
    if path.is_file():
        path.write_text(f"{path.read_text()}\n\nTHE_TEAM_S = True\n")


def reformat(service: Path, line_length: int) -> None:
    """Formats the service's code with the team's line length."""
    run(
        *(sys.executable, "-m", "ruff", "format", "--quiet", "--isolated"),
        *("--no-cache", f"--line-length={line_length}", service),
        cwd=service,
    )


def add_file(service: Path, name: str) -> None:
    path = service / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.write_text('"""Written by the team."""\n')


def add_line(service: Path, name: str) -> None:
    """Adds a line at the end of a rendered file."""
    path = service / name
    if path.is_file():
        path.write_text(f"{path.read_text()}\n\n# A line of the team's.\n")


def edit_what_the_next_release_changes(service: Path) -> None:
    """Changes the same line as the next release, so that an update to it conflicts."""
    _replace(service / INSTANCE, '"""Holds', '"""It holds')


def delete_file(service: Path, name: str) -> None:
    (service / name).unlink(missing_ok=True)


def move_file(service: Path, name: str, to: str) -> None:
    source, target = service / name, service / to
    if source.is_file() and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)


def change_answers(project: Path, **answers: object) -> None:
    """Changes the answers file in a project's folder by hand."""
    path = project / ".copier-answers.yml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **answers}))
