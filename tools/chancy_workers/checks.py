"""What can be wrong with a service that was rendered: one function for each check."""

import ast
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from difflib import SequenceMatcher
from io import StringIO
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import InvalidVersion

from .answers import Answers, Project, fingerprint, jobs_of
from .layout import statements
from .source import task
from .template import Template

STATUS_TIMEOUT = 60
# A module of the template's own, without the one that holds the team's choices.
MACHINERY = re.compile(
    r"(chancy_(?!initialization)\w+|__init__|__main__|tests/(conftest|test_chancy_\w+))\.py"
)


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Args:
        file: Where, from the repository's top folder.
        line: The line in it, from 1.
        problem: What is wrong.
        mend: The command or the edit that puts it right.
    """

    service: str
    file: str
    line: int
    problem: str
    mend: str


@dataclass(frozen=True)
class Subject:
    """A service to look at.

    Args:
        answers: Those that the files are from; empty when that cannot be told.
        rendered: A fresh render of the same release with the same answers.
        template: The template's repository; None when it cannot be reached.
    """

    project: Project
    answers: Answers
    rendered: Path | None
    template: Template | None

    @property
    def workers(self) -> Path:
        return self.project.service / "workers"

    @property
    def initialization(self) -> str:
        """The text of the module with the team's choices; nothing when it is gone."""
        path = self.workers / "chancy_initialization.py"
        return _text(path) if path.is_file() else ""

    @property
    def update(self) -> str:
        """The command that brings the service to the newest release and takes answers in."""
        return f"chancy-workers update {shlex.quote(self.project.name)}"

    def shown(self, file: Path) -> str:
        """A path from the repository's top folder, as a shell takes it."""
        return shlex.quote(os.path.relpath(file, self.project.top))

    def found(self, file: Path, problem: str, mend: str, line: int = 1) -> Finding:
        where = Path(os.path.relpath(file, self.project.top)).as_posix()
        return Finding(self.project.name, where, line, problem, mend)


def is_behind(subject: Subject) -> Iterator[Finding]:
    """A newer release of the template is out: update, and read what it changed."""
    if subject.template is None:
        return
    newer = subject.template.releases_after(subject.project.release)
    if newer:
        told = [
            f"{release} ({changes})" if changes else release
            for release in newer
            if (changes := subject.template.changes_of(release)) is not None
        ]
        yield subject.found(
            subject.project.file,
            f"{subject.project.release} is behind {', '.join(told)}",
            subject.update,
        )


def is_answered_by_hand(subject: Subject) -> Iterator[Finding]:
    """The answers were edited after the last render: let an update take them in."""
    answers = subject.project.answers
    if "_fingerprint" in answers and answers["_fingerprint"] != fingerprint(answers):
        yield subject.found(
            subject.project.file,
            "the answers were edited by hand and are not rendered yet",
            subject.update,
        )


def is_edited_by_hand(subject: Subject) -> Iterator[Finding]:
    """What the template owns was edited: updates merge it, and may conflict with it."""
    if subject.rendered is None:
        return
    fresh = subject.rendered / subject.project.service.relative_to(
        subject.project.folder
    )
    for path in sorted((fresh / "workers").rglob("*.py")):
        name = path.relative_to(fresh / "workers").as_posix()
        if not MACHINERY.fullmatch(name):
            continue
        mine = subject.workers / name
        where = subject.shown(mine)
        if mine.is_file():
            if line := _first_edit(path, mine):
                yield subject.found(
                    mine,
                    "the template's, was edited by hand",
                    f"git log -- {where} says why; what the service needs beside belongs "
                    "in chancy_initialization.py, what its tests need in tests/conftest.py",
                    line,
                )
        elif not name.startswith("tests/test_"):
            yield subject.found(
                mine,
                "the template's, is missing",
                f"git checkout $(git rev-list -1 HEAD -- {where})~ -- {where}, or "
                f"git checkout HEAD -- {where} before that is committed",
            )


def _first_edit(rendered: Path, mine: Path) -> int:
    """The first line that differs, 0 when only the formatting does.

    A conftest.py may hold more than the template's.
    """
    texts = [_text(path) for path in (rendered, mine)]
    try:
        told, found = map(statements, texts)
        if told == found or mine.name == "conftest.py" and set(told) <= set(found):
            return 0
    except (SyntaxError, ValueError):
        pass
    before, after = (text.splitlines() for text in texts)
    for tag, _, _, start, _ in SequenceMatcher(None, before, after).get_opcodes():
        if tag != "equal":
            return start + 1
    return 1


def is_not_wired(subject: Subject) -> Iterator[Finding]:
    """Nothing starts the workers: wire them into the file with the app."""
    answers, main = subject.project.answers, subject.project.main
    if main.is_file():
        told = [
            f"--service={answers['service']}",
            f"--package={subject.project.package}",
        ]
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            wired = task("wire_lifespan").main(["--check", *told, "--", str(main)]) == 0
    else:
        wired = any(
            re.search(
                "initialize_workers|workers_router", path.read_text(errors="replace")
            )
            for path in subject.project.service.rglob("*.py")
            if subject.workers not in path.parents
        )
    if not wired:
        wire = f"chancy-workers wire --service {answers['service']} {subject.shown(main)}, or "
        yield subject.found(
            main,
            "starts no workers",
            f"{wire if main.is_file() else ''}name the file with the app in the answer main "
            f"({subject.project.path}), commit, then {subject.update}",
        )


def has_conflicts(subject: Subject) -> Iterator[Finding]:
    """An update left conflict markers, and nobody has chosen yet."""
    files = set(subject.project.service.rglob("*.py"))
    if subject.rendered is not None:
        files |= {
            subject.project.folder / path.relative_to(subject.rendered)
            for path in subject.rendered.rglob("*")
        }
    for path in sorted(filter(Path.is_file, files)):
        for line, text in _lines(path):
            if text == "<<<<<<< before updating":
                yield subject.found(
                    path,
                    "has the conflict of an update",
                    "choose between the <<<<<<< and >>>>>>> lines, then git add it",
                    line,
                )


def has_jobs_without_files(subject: Subject) -> Iterator[Finding]:
    """A job is in the answers and its worker.py is gone: bring it back, or take it out.

    One that is not rendered yet has none.
    """
    rendered = {job["name"] for job in jobs_of(subject.answers)}
    for job in subject.project.jobs:
        worker = subject.workers / job["name"] / "worker.py"
        if job["name"] in rendered and not worker.is_file():
            yield subject.found(
                subject.project.file,
                f"the job {job['name']} is in the answers, and workers/{job['name']}/"
                "worker.py is not there",
                f"take it out of jobs in {subject.project.path}, commit, then "
                + subject.update,
            )


def has_files_without_jobs(subject: Subject) -> Iterator[Finding]:
    """A job's folder is in neither the answers nor the imports: add it, or delete it."""
    answered = {job["name"] for job in subject.project.jobs}
    files = {subject.project.main, *subject.project.service.rglob("*.py")}
    others = {
        path: _text(path)
        for path in files
        if path.is_file() and subject.workers / "tests" not in path.parents
    }
    for path in sorted(subject.workers.glob("*/worker.py")):
        name = path.parent.name
        test = subject.workers / "tests" / f"test_job_{name}.py"
        named = re.compile(
            rf"\b{re.escape(name)}(\.worker\b| import (\([^)]*|.*)\bworker\b)"
        )
        imported = any(
            named.search(text)
            for other, text in others.items()
            if path.parent not in other.parents
        )
        if name not in answered and not imported:
            its = [path.parent, test] if test.is_file() else [path.parent]
            shown = " ".join(map(subject.shown, its))
            yield subject.found(
                path,
                f"nobody registers the job {name} (what is queued of it still runs)",
                f"chancy-workers add-job {shlex.quote(subject.project.name)} {name}, or "
                f"git rm -r {shown}",
            )


def has_jobs_without_queue(subject: Subject) -> Iterator[Finding]:
    """A job names a queue that nobody declares, so that no worker ever takes it.

    Nothing is found where QUEUES is not a list of calls, which would have to be run.
    """
    declared = {"default"}
    tree = _parsed(subject.initialization)
    if not _lists_calls(tree, "QUEUES"):
        return
    for call in _calls(tree, "Queue"):
        name = _text_of(_keyword(call, "name") or next(iter(call.args), None))
        if name is None:
            return
        declared.add(name)
    for path in sorted(subject.workers.glob("*/worker.py")):
        for call in _calls(_parsed(_text(path)), "job"):
            queue = _text_of(_keyword(call, "queue"))
            if queue and queue not in declared:
                yield subject.found(
                    path,
                    f"the queue {queue} is not declared, and its jobs never run",
                    f"add it to queues in {subject.project.path}, commit, then "
                    + subject.update,
                    call.lineno,
                )


def _parsed(text: str) -> ast.AST:
    """The syntax tree of a module, an empty one where the text is no Python."""
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def _lists_calls(tree: ast.AST, name: str) -> bool:
    """Whether a name is a list of calls and nothing else."""
    for node in ast.walk(tree):
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=found)], value=ast.List(elts=items))
                | ast.AnnAssign(target=ast.Name(id=found), value=ast.List(elts=items))
            ):
                if found == name:
                    return all(isinstance(item, ast.Call) for item in items)
    return False


def _calls(tree: ast.AST, function: str) -> Iterator[ast.Call]:
    """The calls of a function of this name."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
                if name == function:
                    yield node


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    """What a call gives to its argument of this name."""
    return next((each.value for each in call.keywords if each.arg == name), None)


def _text_of(node: ast.expr | None) -> str | None:
    """The text that an expression is, where it is one as it stands."""
    match node:
        case ast.Constant(value=str(text)):
            return text
    return None


def has_another_chancy(subject: Subject) -> Iterator[Finding]:
    """Chancy's version is none that this release was tested with."""
    requirements = subject.workers / "__init__.py"
    if not requirements.is_file():
        return
    named = re.search(r'"(chancy\b[^"]*)"', _text(requirements))
    if named is None:
        return
    tested = Requirement(named[1])
    for file, version in _chancy_versions(subject):
        try:
            if tested.specifier.contains(version, prereleases=True):
                continue
        except InvalidVersion:
            continue
        yield subject.found(
            file,
            f"Chancy {version} is outside of {tested.specifier}, the tested range",
            f'uv add "{tested}"',
        )


def _chancy_versions(subject: Subject) -> Iterator[tuple[Path, str]]:
    """The nearest versions: in an environment, in a lock file, pinned in requirements."""
    top = subject.project.top
    service = subject.project.service
    for folder in (
        above for above in (service, *service.parents) if top in (above, *above.parents)
    ):
        pattern = ".venv/lib/python*/site-packages/chancy-*.dist-info"
        for path in sorted(folder.glob(pattern)):
            yield path, path.name.split("-")[1].removesuffix(".dist")
        for path in sorted(folder.glob("*.lock")):
            yield from _locked(path)
        for path in sorted(folder.glob("requirements*.txt")):
            for _, text in _lines(path):
                if pin := re.match(r"chancy(?:\[[\w,]*\])?==([\w.+!-]+)", text):
                    yield path, pin[1]


def _locked(path: Path) -> Iterator[tuple[Path, str]]:
    try:
        packages = tomllib.loads(path.read_text(encoding="utf-8")).get("package", [])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        return
    for package in packages:
        if isinstance(package, dict) and package.get("name") == "chancy":
            yield path, str(package.get("version", ""))


def has_tables_to_migrate(subject: Subject) -> Iterator[Finding]:
    """The database that the environment or the secret names lacks a migration."""
    package = subject.project.package
    root = subject.project.service.parents[len(package.split(".")) - 1]
    python = next(
        (
            str(path)
            for above in (subject.project.service, *subject.project.service.parents)
            if (path := above / ".venv" / "bin" / "python").exists()
        ),
        "python",
    )
    command = [python, "-m", f"{package}.workers", "status"]
    try:
        result = subprocess.run(
            command,
            cwd=root,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=STATUS_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        yield subject.found(subject.workers, f"status did not run: {error}", "uv sync")
        return
    if result.returncode != 0:
        lines = [*result.stdout.splitlines(), *result.stderr.splitlines()]
        due = "; ".join(
            line.strip() for line in lines if "due" in line or "open" in line
        )
        yield subject.found(
            subject.workers,
            f"the tables are not as they should be: {due or lines[-1]}",
            f"python -m {package}.workers migrate",
        )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers, from 1."""
    yield from enumerate(_text(path).splitlines(), 1)


def _text(path: Path) -> str:
    """A text file, in whatever encoding the team wrote it."""
    return path.read_text(encoding="utf-8", errors="replace")


CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    is_behind,
    is_answered_by_hand,
    is_edited_by_hand,
    is_not_wired,
    has_conflicts,
    has_jobs_without_files,
    has_files_without_jobs,
    has_jobs_without_queue,
    has_another_chancy,
)
