"""Keeps a team's files through an update; Copier runs it after each one.

    python keep_files.py ANSWERS_FILE WORKERS_FOLDER TEMPLATE RELEASE

Copier deletes the files of a job that was taken out of the answers, brings back those that
the team deleted or moved, and deletes a file that the template has no more, edited or not.
HEAD has them all, because only a committed tree is updated; the template's repository has
the release before, and files in it that are no Jinja as they were rendered.
"""

import os
import re
import subprocess
import sys
from collections.abc import Container, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

JINJA = ".jinja"
LINK = "120000"
# A file's mode and its object.
Blob = tuple[str, str]


def main(answers_file: str, workers: str, template: str, release: str) -> None:
    """Puts the files of the current folder right and says what became of them."""
    before = jobs_of(git("show", f"HEAD:./{answers_file}"))
    after = jobs_of(Path(answers_file).read_text(encoding="utf-8"))
    files = tree_of("HEAD", ".")
    removed = [job for job in before if job not in after]
    added = [job for job in after if job not in before]
    kept = [job for job in removed if restore_job(job, workers, files)]
    for job in before:
        if job in after:
            delete_what_came_back(job, workers, files)
    report_removed(kept, added, workers)
    report_moved(before, after, workers)
    rendered = rendered_files(tree_of(release, "template", "-C", template), workers)
    restore_edited(files, rendered)
    report_links(files, rendered)


def tree_of(commit: str, folder: str, *where: str) -> dict[str, Blob]:
    """The committed files below a folder, by name.

    Args:
        where: Options of git that name another repository.
    """
    listed = git(*where, "ls-tree", "-r", "-z", commit, f"{folder}/")
    entries = [entry.split("\t", 1) for entry in listed.split("\0") if entry]
    return {name: (about.split()[0], about.split()[2]) for about, name in entries}


def rendered_files(tree: Mapping[str, Blob], workers: str) -> dict[str, Blob]:
    """The template's files by their names here, with .jinja; without those of jobs."""
    found = {}
    for name, blob in tree.items():
        if "scope == 'backend'" in name and workers == "workers":
            continue
        below = name.removeprefix("template/").replace(
            "{{ service_root }}/workers", workers
        )
        below = below.replace("{{ service_root }}", str(Path(workers).parent))
        below = re.sub("{% if .*? %}(.*?){% endif %}", r"\1", below)
        if "{" not in below:
            found[os.path.normpath(below)] = blob
    return found


def jobs_of(text: str) -> dict[str, tuple[str, str]]:
    """The jobs in an answers file, each with its queue and how its function begins."""
    answers: dict[str, Any] = yaml.safe_load(text) or {}
    queues = dict(map(named, answers.get("queues") or []))
    found = {}
    for name, job in map(named, answers.get("jobs") or []):
        queue = job.get("queue", "default")
        executor = queues.get(queue, {}).get("executor", "async")
        found[name] = (queue, "async def" if executor == "async" else "def")
    return found


def named(item: Any) -> tuple[str, dict[str, Any]]:
    """A job or a queue with its name; a bare name is short for one without options."""
    return (item, {}) if isinstance(item, str) else (item["name"], item)


def restore_job(job: str, workers: str, files: Mapping[str, object]) -> bool:
    """Brings the committed files of a job back; whether it has a worker.py."""
    test = f"{workers}/tests/test_job_{job}.py"
    restore(
        name for name in files if name.startswith(f"{workers}/{job}/") or name == test
    )
    return f"{workers}/{job}/worker.py" in files


def restore(names: Iterable[str]) -> list[str]:
    """Brings committed files back; returns those that were gone."""
    gone = [name for name in names if not os.path.lexists(name)]
    if gone:
        hooks = ("-c", f"core.hooksPath={os.devnull}")
        git(*hooks, "checkout", "HEAD", "--", *(f":(literal){name}" for name in gone))
    return gone


def delete_what_came_back(job: str, workers: str, files: Container[str]) -> None:
    """Deletes the files of a job that the team had deleted or moved."""
    for name in (
        f"{workers}/{job}/__init__.py",
        f"{workers}/{job}/worker.py",
        f"{workers}/tests/test_job_{job}.py",
    ):
        path = Path(name)
        if name not in files and path.is_file():
            path.unlink()
            if not any(path.parent.iterdir()):
                path.parent.rmdir()


def report_removed(kept: list[str], added: list[str], workers: str) -> None:
    """Says what nothing registers any more, and how to finish a renaming."""
    for job in kept:
        print(
            f"The job {job} is out of the answers, and nothing registers it any more. "
            f"{workers}/{job} and its test stay: jobs of it that are queued still run. "
            "Delete them when there are none."
        )
    if len(kept) == len(added) == 1:
        print(
            f"Was {kept[0]} renamed? {workers}/{added[0]}/worker.py is new: bring the body "
            f"of {workers}/{kept[0]}/worker.py over."
        )


def report_moved(
    before: dict[str, tuple[str, str]], after: dict[str, tuple[str, str]], workers: str
) -> None:
    """Says what the team has to change in files that are its own."""
    for job in before:
        if after.get(job, before[job]) == before[job]:
            continue
        queue, kind = after[job]
        print(
            f"The answers now have the job {job} on the queue {queue}, which runs "
            f"{'coroutines' if kind == 'async def' else 'plain functions'}, and its file is "
            f'yours: write @job(queue="{queue}") and {kind} in {workers}/{job}/worker.py.'
        )


def restore_edited(files: Mapping[str, Blob], rendered: Mapping[str, Blob]) -> None:
    """Brings edited files back that Copier deleted, and names them."""
    edited = {
        name
        for name, (_, blob) in files.items()
        if name in rendered and blob != rendered[name][1]
    }
    # An edited test needs its module.
    edited |= {name.replace("/tests/test_", "/") for name in edited} & files.keys()
    for name in restore(sorted(edited)):
        print(
            f"{name} would go with this update, and stays, since it or its test was edited "
            "or laid out anew: delete it when nothing of it is needed."
        )


def report_links(files: Mapping[str, Blob], rendered: Mapping[str, Blob]) -> None:
    """Names links: Copier merges files, and keeps a link with whatever it points to."""
    for name, (mode, _) in files.items():
        told = name in rendered or f"{name}{JINJA}" in rendered
        if mode == LINK and told and Path(name).name != "main.py":
            print(
                f"{name} is a link, and stays one: what the release changed in this file is "
                "not in what it points to."
            )


def git(*arguments: str) -> str:
    result = subprocess.run(
        ["git", *arguments], check=True, capture_output=True, encoding="utf-8"
    )
    return result.stdout


if __name__ == "__main__":
    main(*sys.argv[1:])
