"""Keeps a team's files through an update; Copier runs it after each one.

    python keep_jobs.py ANSWERS_FILE WORKERS_FOLDER

Copier deletes the files of a job that was taken out of the answers, and brings back those
that the team deleted or moved. HEAD has both, because only a committed tree is updated.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml


def main(answers_file: str, workers: str) -> None:
    """Puts the job files of the current folder right and says what became of them."""
    before = jobs_of(git("show", f"HEAD:./{answers_file}"))
    after = jobs_of(Path(answers_file).read_text(encoding="utf-8"))
    committed = git("ls-tree", "-r", "-z", "HEAD", f"{workers}/")
    entries = [entry.split("\t", 1) for entry in committed.split("\0") if entry]
    files = {name for _, name in entries}
    removed = [job for job in before if job not in after]
    added = [job for job in after if job not in before]
    kept = [job for job in removed if restore(job, workers, files)]
    for job in before:
        if job in after:
            delete_what_came_back(job, workers, files)
    report_removed(kept, added, workers)
    report_moved(before, after, workers)
    links = [name for about, name in entries if about.startswith("120000 ")]
    report_links([name for name in links if not name.endswith("/worker.py")])


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


def restore(job: str, workers: str, files: set[str]) -> bool:
    """Brings the committed files of a job back; whether it has a worker.py."""
    test = f"{workers}/tests/test_job_{job}.py"
    of_job = [
        name for name in files if name.startswith(f"{workers}/{job}/") or name == test
    ]
    gone = [name for name in of_job if not Path(name).exists()]
    if gone:
        git("checkout", "HEAD", "--", *(f":(literal){name}" for name in gone))
    return f"{workers}/{job}/worker.py" in files


def delete_what_came_back(job: str, workers: str, files: set[str]) -> None:
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


def report_links(links: list[str]) -> None:
    """Names links: Copier merges files, and keeps a link with whatever it points to."""
    for name in links:
        print(
            f"{name} is a link, and it stays with what it points to: if the template has a "
            "file of this name, what the release changed in it is not there."
        )


def git(*arguments: str) -> str:
    result = subprocess.run(
        ["git", *arguments], check=True, capture_output=True, encoding="utf-8"
    )
    return result.stdout


if __name__ == "__main__":
    main(*sys.argv[1:])
