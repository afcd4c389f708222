"""The services that this template rendered, and what was answered for them."""

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
    """What one answers file stands for: a service, or a backend with its first one.

    Args:
        file: The answers file; its folder is the destination of `copier update`.
        answers: What is in it.
    """

    file: Path
    answers: Answers

    @property
    def folder(self) -> Path:
        return self.file.parent

    @property
    def service(self) -> Path:
        """The service's folder, the one with `workers/` in it."""
        if self.answers["scope"] == "backend":
            return self.folder / "app" / str(self.answers["service"])
        return self.folder

    @property
    def main(self) -> Path:
        """The file that the answers name as the one with the app; it may be missing."""
        return Path(
            os.path.normpath(self.service / str(self.answers.get("main", "main.py")))
        )

    @property
    def name(self) -> str:
        """The service's folder, as a command takes it from the repository's top."""
        return self.service.relative_to(self.top).as_posix()

    @property
    def package(self) -> str:
        return str(self.answers.get("package", f"app.{self.answers['service']}"))

    def modules(self) -> Iterator[Path]:
        """The Python files in the service's folder, but for those of an environment."""
        for folder, below, files in os.walk(self.service):
            below[:] = [
                name
                for name in below
                if name[0] != "." and not Path(folder, name, "pyvenv.cfg").is_file()
            ]
            yield from (Path(folder, name) for name in files if name.endswith(".py"))

    @property
    def release(self) -> str:
        """The release of the template that the files are from; an archive has none."""
        return str(self.answers.get("_commit", "no release"))

    @property
    def jobs(self) -> list[dict[str, Any]]:
        """The jobs, each with its `name`; what is none, an update refuses and names."""
        return jobs_of(self.answers)

    @cached_property
    def top(self) -> Path:
        """The top folder of the repository.

        Raises:
            Refused: There is none.
        """
        return top_of(self.folder)

    @property
    def path(self) -> str:
        """The answers file as git names it."""
        return self.file.relative_to(self.top).as_posix()


@dataclass(frozen=True)
class Unreadable:
    """An answers file that is no YAML.

    Args:
        name: The file, as a command takes it from the repository's top.
    """

    name: str
    reason: str
    mend: str


def jobs_of(answers: Answers) -> list[dict[str, Any]]:
    """The jobs in answers, each with its `name`; none of what is no job."""
    told = answers.get("jobs")
    jobs = [
        {"name": job} if isinstance(job, str) else job
        for job in (told if isinstance(told, list) else [])
    ]
    return [
        job
        for job in jobs
        if isinstance(job, dict) and isinstance(job.get("name"), str)
    ]


def read(file: Path) -> Project | None:
    """The project of an answers file, None when that is another template's.

    Raises:
        Refused: The file is no YAML.
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
    """The project that a service's folder belongs to: its answers are there or above.

    Raises:
        Refused: The folder is missing, in no repository, or this template rendered
            nothing into it.
    """
    start = folder.resolve()
    if not start.is_dir():
        raise Refused(
            f"there is no folder {folder}: name a service's, such as app/billing"
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
        f"{folder} holds no workers of this template: put them there with copier copy, or "
        "name the service's folder, such as app/billing"
    )


def choose(folders: Sequence[Path]) -> list[Project | Unreadable]:
    """The projects of these folders, or every one of the repository without any.

    Raises:
        Refused: A folder has none, or the repository has none.
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
            "no service here was rendered by this template: go to the backend's "
            "repository, or name a service's folder"
        )
    return found


def _mend(file: Path, shown: Path | str) -> str:
    """How to get a readable answers file back.

    Args:
        shown: The file, as the command has to name it.
    """
    state = git(file.parent, "status", "--porcelain", "--", f":(literal){file.name}")[
        :2
    ]
    if state in ("", "??", "AA", "DD") or "U" in state:
        return (
            'mend it by hand (README, "Change the answers", has what to do with a '
            "conflict), and commit"
        )
    return f"git checkout HEAD -- {shlex.quote(str(shown))}"


def fingerprint(answers: Answers) -> str:
    """What the template writes into the answers file; an edit by hand does not fit it."""
    told = {key: value for key, value in answers.items() if not key.startswith("_")}
    text = json.dumps(told, sort_keys=True, default=str)
    return hashlib.sha1(text.encode()).hexdigest()


def rendered_answers(project: Project) -> Answers:
    """The answers that the files are from, which an edit by hand has not changed yet.

    They are those of the newest commit whose fingerprint fits, and is the one of now: a
    merge of two branches keeps one of theirs. Without one, the newest that fits. Releases
    before v0.3.0 wrote none; then they are those that came in with the release.

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
            f"{project.file} was edited by hand, and no commit has it as Copier wrote it: "
            "fetch the whole history (git fetch --unshallow), or undo the edit and answer "
            "with copier update --trust --vcs-ref :current: -d NAME=VALUE"
        )
    return found


def _history(project: Project) -> Iterator[Answers]:
    """The answers file in the commits that changed it, the newest first.

    A file that was moved is followed. One that git takes for a copy is new: services that
    came from one template look alike.
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
            answers = None  # A conflict that was committed, say.
        if isinstance(answers, dict):
            yield answers
        if change.startswith("C"):
            break
