"""The services that this template rendered, and their answers."""

import hashlib
import json
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from .repository import Refused, files_like, git, top_of

PATTERN = ".copier-answers*.yml"
Answers = dict[str, Any]


@dataclass(frozen=True)
class Project:
    """The project of one answers file: a service, or a backend with its first service.

    Args:
        file: The answers file; its folder is the destination of `copier update`.
        answers: The content of the file.
    """

    file: Path
    answers: Answers

    @property
    def folder(self) -> Path:
        return self.file.parent

    @property
    def service(self) -> Path:
        """The service's folder, which contains `workers/`."""
        if self.answers["scope"] == "backend":
            return self.folder / "app" / str(self.answers["service"])
        return self.folder

    @property
    def main(self) -> Path:
        """The file with the app, according to the answers; it may be missing."""
        return Path(
            os.path.normpath(self.service / str(self.answers.get("main", "main.py")))
        )

    @property
    def name(self) -> str:
        """The path of the service's folder from the repository's top."""
        return self.service.relative_to(self.top).as_posix()

    @property
    def package(self) -> str:
        return str(self.answers.get("package", f"app.{self.answers['service']}"))

    def modules(self) -> Iterator[Path]:
        """The Python files in the service's folder, without virtual environments."""
        for folder, below, files in os.walk(self.service):
            below[:] = [
                name
                for name in below
                if name[0] != "." and not Path(folder, name, "pyvenv.cfg").is_file()
            ]
            yield from (Path(folder, name) for name in files if name.endswith(".py"))

    @property
    def release(self) -> str:
        """The release of the template from which the files were rendered; archives have none."""
        return str(self.answers.get("_commit", "no release"))

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """The valid jobs, each with its `name`; an update reports invalid ones."""
        return jobs_of(self.answers)

    @cached_property
    def top(self) -> Path:
        """The top folder of the repository.

        Raises:
            Refused: The folder is not in a repository.
        """
        return top_of(self.folder)

    @property
    def path(self) -> str:
        """The path of the answers file from the repository's top."""
        return self.file.relative_to(self.top).as_posix()


@dataclass(frozen=True)
class Unreadable:
    """An answers file that is not valid YAML.

    Args:
        name: The path of the file from the repository's top.
    """

    name: str
    reason: str
    mend: str


def jobs_of(answers: Answers) -> list[dict[str, Any]]:
    """The jobs in answers, each with its `name`; entries that are not jobs are skipped."""
    entries = answers.get("jobs")
    jobs = [
        {"name": job} if isinstance(job, str) else job
        for job in (entries if isinstance(entries, list) else [])
    ]
    return [
        job
        for job in jobs
        if isinstance(job, dict) and isinstance(job.get("name"), str)
    ]


def read(file: Path) -> Project | None:
    """The project of an answers file, None if another template wrote the file.

    Raises:
        Refused: The file is not valid YAML.
    """
    try:
        answers = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise Refused(f"cannot be read ({' '.join(str(error).split())})") from error
    if not isinstance(answers, dict):
        return None
    if not {"scope", "service", "jobs", "database_secret"} <= answers.keys():
        return None
    return Project(file.resolve(), answers)


def find(folder: Path) -> Project:
    """The project of a service's folder; its answers are in the folder or above it.

    Raises:
        Refused: The folder is missing or not in a repository, or this template rendered
            nothing into it.
    """
    start = folder.resolve()
    if not start.is_dir():
        raise Refused(
            f"there is no folder {folder}: name a service's folder, such as app/billing"
        )
    top_of(start)
    for above in (start, *start.parents):
        for file in sorted(above.glob(PATTERN)):
            try:
                project = read(file)
            except Refused as refused:
                raise Refused(f"{file} {refused}: {_mend(file, file)}") from refused
            if project and (
                above == start or project.service in (start, *start.parents)
            ):
                return project
        if (above / ".git").exists():
            break
    raise Refused(
        f"{folder} has no workers of this template: add them with copier copy, or name the "
        "service's folder, such as app/billing"
    )


def choose(folders: Sequence[Path]) -> list[Project | Unreadable]:
    """The projects of these folders; without folders all projects of the repository.

    Raises:
        Refused: A folder or the repository has no project.
    """
    if folders:
        named = {project.file: project for project in map(find, folders)}
        return [named[file] for file in sorted(named)]
    top = top_of(Path.cwd())
    found: list[Project | Unreadable] = []
    for name in files_like(top, PATTERN):
        try:
            project = read(top / name)
        except Refused as refused:
            found.append(Unreadable(name, str(refused), _mend(top / name, name)))
        else:
            found += [project] if project else []
    if not found:
        raise Refused(
            "this template rendered no service here: run this in the backend's repository, "
            "or name a service's folder"
        )
    return found


def _mend(file: Path, shown: Path | str) -> str:
    """How to get a readable answers file back.

    Args:
        shown: The path of the file for the command.
    """
    state = git(file.parent, "status", "--porcelain", "--", f":(literal){file.name}")[
        :2
    ]
    if state in ("", "??", "AA", "DD") or "U" in state:
        return (
            'correct it by hand (README, "Change the answers", explains conflicts), and '
            "commit"
        )
    return f"git checkout HEAD -- {shlex.quote(str(shown))}"


def fingerprint(answers: Answers) -> str:
    """The fingerprint that the template writes; it no longer matches after an edit by hand."""
    asked = {key: value for key, value in answers.items() if not key.startswith("_")}
    text = json.dumps(asked, sort_keys=True, default=str)
    return hashlib.sha1(text.encode()).hexdigest()


def rendered_answers(project: Project) -> Answers:
    """The answers from which the files were rendered, without later edits by hand.

    They are in the newest commit whose fingerprint matches its answers and is the current
    fingerprint (a merge of two branches keeps one of theirs), otherwise in the newest commit
    whose fingerprint matches. Releases before v0.3.0 wrote no fingerprint; then the answers
    are those of the commit that brought the release.

    Raises:
        Refused: The history does not go back that far.
    """
    now = project.answers
    if now.get("_fingerprint") == fingerprint(now):
        return now
    found: Answers | None = None
    for before in _history(project):
        if "_fingerprint" in before:
            if before["_fingerprint"] == fingerprint(before):
                if before["_fingerprint"] == now.get("_fingerprint"):
                    return before
                found = found or before
        elif "_fingerprint" not in now and before.get("_commit") == now.get("_commit"):
            found = before
        else:
            break
    if found is None:
        raise Refused(
            f"{project.file} was edited by hand, and no commit has the version that Copier "
            "wrote: fetch the whole history (git fetch --unshallow), or undo the edit and "
            "answer with copier update --trust --vcs-ref :current: -d NAME=VALUE"
        )
    return found


def _history(project: Project) -> Iterator[Answers]:
    """The answers file in the commits that changed it, the newest first.

    Moves of the file are followed. A copy, as git detects it, ends the history, because the
    services of one template look alike.
    """
    log = git(
        project.top,
        *(
            "-c",
            "core.quotePath=false",
            "log",
            "--follow",
            "--name-status",
            "--format=commit %H",
            "--",
            project.path,
        ),
    )
    commit = ""
    for line in filter(None, log.splitlines()):
        if line.startswith("commit "):
            commit = line.removeprefix("commit ")
            continue
        change, *_, path = line.split("\t")
        try:
            answers = yaml.safe_load(git(project.top, "show", f"{commit}:{path}"))
        except (ValueError, yaml.YAMLError):
            answers = None  # A committed conflict, for example.
        if isinstance(answers, dict):
            yield answers
        if change.startswith("C"):
            break
