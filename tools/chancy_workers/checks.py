"""The checks of a rendered service: one function for each."""

import ast
import os
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cached_property, partial
from io import StringIO
from pathlib import Path

from .alembic_env import LIBRARY, gaps_in
from .answers import Answers, Project, fingerprint, jobs_of
from .connections import sum_of
from .dashboards import includes_dashboard, passes_dashboard
from .deploy_files import is_deployed, probes_without_routes, short_graces
from .in_the_way import in_the_way
from .library import (
    NAME,
    folders_of,
    has_dependency,
    is_older,
    missing_extras,
    needed_version,
    pin_of,
    versions_near,
)
from .own_tests import conftest_of, that_start_workers
from .python_files import parsed
from .renewal import is_machinery, rendered_files, scratch_folder
from .repository import Refused, files_like, files_with, first_of, git, ignored
from .source import task
from .template import Template
from .upgrade import add_command

STATUS_TIMEOUT = 60
DEFAULT = ".copier-answers.yml"


@dataclass(frozen=True)
class Finding:
    """One problem.

    Args:
        file: The path of the file, from the repository's top folder.
        line: The line in it, from 1.
        problem: What is wrong.
        mend: The command or the edit that corrects it.
        level: `error`, or `notice` for something that may be right.
    """

    service: str
    file: str
    line: int
    problem: str
    mend: str
    level: str = "error"


@dataclass(frozen=True)
class Subject:
    """A service to check.

    Args:
        answers: The answers from which the files were rendered; empty if unknown.
        rendered: A fresh render of the same release with the same answers.
        template: The template's repository; None if it cannot be reached.
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
        """The text of the module with the team's choices; "" if it is missing."""
        path = self.workers / "chancy_initialization.py"
        return _text(path) if path.is_file() else ""

    @property
    def update(self) -> str:
        """The command that updates the service and applies changed answers."""
        return f"chancy-workers update {shlex.quote(self.project.name)}"

    @cached_property
    def ignored(self) -> dict[Path, str]:
        """The untracked rendered files that git ignores, each with the line that causes it."""
        project, rendered = self.project, self.rendered
        listed = {project.path, *rendered_files(project)}
        if rendered is not None:
            folder = project.folder.relative_to(project.top)
            listed |= {
                (folder / path.relative_to(rendered)).as_posix()
                for path in rendered.rglob("*")
                if path.is_file()
            }
        found = ignored(project.top, sorted(listed))
        return {project.top / name: line for name, line in found.items()}

    def brings_back(self, *files: Path) -> str:
        """The command that brings back missing rendered files."""
        project = self.project
        where = " ".join(map(self.shown, files))
        known = [f":(literal){file.relative_to(project.top)}" for file in files]
        if git(project.top, "rev-list", "-1", "HEAD", "--", *known):
            return (
                f"git checkout $(git rev-list -1 HEAD -- {where})~ -- {where}, or "
                f"git checkout HEAD -- {where} before that is committed"
            )
        options = "" if project.file.name == DEFAULT else f"-a {project.file.name} "
        if project.main not in files:
            options += "--exclude main.py "
        return (
            "uvx copier recopy --trust --skip-tasks --defaults --quiet --vcs-ref=:current: "
            f"--skip '*' {options}{self.shown(project.folder)} && git add -f {where}"
        )

    def shown(self, file: Path) -> str:
        """A path from the repository's top folder, quoted for a shell."""
        return shlex.quote(os.path.relpath(file, self.project.top))

    def found(
        self, file: Path, problem: str, mend: str, line: int = 1, level: str = "error"
    ) -> Finding:
        where = Path(os.path.relpath(file, self.project.top)).as_posix()
        return Finding(self.project.name, where, line, problem, mend, level)


def is_behind(subject: Subject, level: str) -> Iterator[Finding]:
    """The template has a newer release: update, and read what it changed."""
    if subject.template is None:
        return
    newer = subject.template.releases_after(subject.project.release)
    if newer:
        described = [
            f"{release} ({changes})" if changes else release
            for release in newer
            if (changes := subject.template.changes_of(release)) is not None
        ]
        yield subject.found(
            subject.project.file,
            f"{subject.project.release} is behind {', '.join(described)}",
            subject.update,
            level=level,
        )


def is_answered_by_hand(subject: Subject) -> Iterator[Finding]:
    """The answers were edited after the last render: apply them with an update."""
    answers = subject.project.answers
    if "_fingerprint" in answers and answers["_fingerprint"] != fingerprint(answers):
        yield subject.found(
            subject.project.file,
            "the answers were edited by hand and have not been rendered yet",
            subject.update,
        )


def has_missing_modules(subject: Subject) -> Iterator[Finding]:
    """A module is missing that the workers or their commands need to start."""
    if subject.rendered is None:
        return
    fresh = subject.rendered / subject.project.service.relative_to(
        subject.project.folder
    )
    for rendered in sorted((fresh / "workers").glob("*.py")):
        path = subject.workers / rendered.name
        if not path.is_file() and path not in subject.ignored:
            yield subject.found(path, "is missing", subject.brings_back(path))


def has_ignored_files(subject: Subject) -> Iterator[Finding]:
    """Git ignores rendered files, so clones do not have them: add them anyway."""
    groups: dict[tuple[str, bool], list[Path]] = {}
    for path, line in subject.ignored.items():
        groups.setdefault((line, path.exists()), []).append(path)
    for (line, is_there), paths in groups.items():
        names = " ".join(map(subject.shown, paths))
        problem = f"git ignores {names} ({line}), so clones do not have them"
        yield subject.found(
            paths[0],
            problem if is_there else f"is missing, and {problem}",
            f"git add -f {names}, or narrow that line"
            if is_there
            else f"git add -f {names} where they exist, or here "
            f"{subject.brings_back(*paths)}",
        )


def has_old_imports(subject: Subject) -> Iterator[Finding]:
    """An import names a module that moved into the library in v0.5.0."""
    project = subject.project
    if needed_version(subject.workers) is None:
        return
    wiring = task("wire_lifespan")
    for path in sorted({*project.modules(), project.main}):
        if not path.is_file() or is_machinery(path, project):
            continue
        place = wiring.service_of(path, project.answers["service"], project.package, "")
        for each in wiring.find_old_imports(path.read_bytes(), place):
            yield subject.found(
                path,
                f"{each.text} no longer works, because the module is now in the library",
                f"write {each.write}",
                each.line,
            )


def is_not_wired(subject: Subject) -> Iterator[Finding]:
    """Nothing starts the workers: wire them into the file with the app."""
    answers, main = subject.project.answers, subject.project.main
    if main.is_file():
        options = [
            f"--service={answers['service']}",
            f"--package={subject.project.package}",
        ]
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
            wire_lifespan = task("wire_lifespan")
            wired = wire_lifespan.main(["--check", *options, "--", str(main)]) == 0
    else:
        wired = any(
            re.search(
                "initialize_workers|workers_router", path.read_text(errors="replace")
            )
            for path in subject.project.modules()
            if subject.workers not in path.parents
        )
    if not wired:
        wire = f"chancy-workers wire --service {answers['service']} {subject.shown(main)}, or "
        others = [subject.shown(path) for path, _ in _other_apps(subject)]
        perhaps = f", perhaps {' or '.join(others)}," if others else ""
        yield subject.found(
            main,
            "starts no workers",
            f"{wire if main.is_file() else ''}name the file with the app{perhaps} in the "
            f"answer main ({subject.project.path}), commit, then {subject.update}",
        )
        return
    is_sample = _is_sample(subject)
    remove = "git rm" if is_sample else "chancy-workers wire --remove"
    for path, line in _other_apps(subject):
        yield subject.found(
            path,
            "has an app that starts no workers"
            + (", beside the app that the template wrote" if is_sample else ""),
            "if the server runs this app, chancy-workers wire --service "
            f"{answers['service']} {subject.shown(path)}, then {remove} {subject.shown(main)}",
            line,
            "error" if is_sample else "notice",
        )


def _other_apps(subject: Subject) -> Iterator[tuple[Path, int]]:
    """Files in the service's folder with another app, and its line."""
    project, wiring = subject.project, task("wire_lifespan")
    name, package = project.answers["service"], project.package
    service = wiring.service_of(project.main, name, package, "")
    yield from wiring.other_apps(service._replace(folder=project.service))


def _is_sample(subject: Subject) -> bool:
    """Whether the file with the app is unchanged since the template wrote it."""
    if subject.rendered is None or not subject.project.main.is_file():
        return False
    main = os.path.relpath(subject.project.main, subject.project.folder)
    fresh = subject.rendered / main
    return fresh.is_file() and bool(
        task("layout").differ_in_layout_only(_text(fresh), _text(subject.project.main))
    )


def has_no_way_to_the_dashboard(subject: Subject) -> Iterator[Finding]:
    """The answers have a dashboard that is not served, or it is served without an answer."""
    project = subject.project
    where = str(subject.answers.get("dashboard", "none"))
    file = subject.workers / "dashboard.py"
    its = {path for path in project.modules() if subject.workers not in path.parents}
    apps = sorted(filter(Path.is_file, {project.main, *its}))
    including = filter(partial(_includes_dashboard, subject), apps)
    is_ours = not file.is_file() or "chancy_runtime.dashboard" in _text(file)
    if where == "none" and is_ours:
        for path in including:
            yield subject.found(
                path,
                "includes the dashboard, but the answers have none",
                f"remove its lines, or set dashboard in {project.path}, commit, then "
                + subject.update,
            )
    elif where == "in_api" and not next(including, None):
        root = _root_of(project)
        others = (root / name for name in files_with("dashboard", root, "*.py"))
        if not any(_includes_dashboard(subject, path) for path in others):
            name = f"{project.answers['service']}_dashboard"
            yield subject.found(
                project.main,
                "does not include the dashboard, so nobody can open it",
                f"write from {project.package}.workers.dashboard import router as {name}, "
                f"and app.include_router({name}) after the app is made",
            )
    elif where == "own_process":
        program = subject.workers / "__main__.py"
        if program.is_file() and not passes_dashboard(parsed(_text(program))):
            yield subject.found(
                program,
                "does not pass the dashboard to main(), so run does not serve it",
                "write from .dashboard import router, and main(…, dashboard=router)",
            )


def _includes_dashboard(subject: Subject, path: Path) -> bool:
    text = _text(path)
    return "dashboard" in text and includes_dashboard(
        parsed(text), path, subject.workers, subject.project.package
    )


def has_conflicts(subject: Subject) -> Iterator[Finding]:
    """An update left conflict markers that are not resolved yet."""
    files = set(subject.project.modules())
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
                    "has a conflict from an update",
                    "choose between the <<<<<<< and >>>>>>> lines, then git add it",
                    line,
                )


def has_jobs_without_files(subject: Subject) -> Iterator[Finding]:
    """A job is in the answers and its worker.py is missing: bring it back, or remove the job.

    A job that is not rendered yet is skipped.
    """
    rendered = {job["name"] for job in jobs_of(subject.answers)}
    for job in subject.project.jobs:
        worker = subject.workers / job["name"] / "worker.py"
        if (
            job["name"] in rendered
            and not worker.is_file()
            and worker not in subject.ignored
        ):
            yield subject.found(
                subject.project.file,
                f"the job {job['name']} is in the answers, but workers/{job['name']}/"
                "worker.py is missing",
                f"{subject.brings_back(worker)}; or remove it from jobs in "
                f"{subject.project.path}, commit, then {subject.update}",
            )


def has_files_without_jobs(subject: Subject) -> Iterator[Finding]:
    """A job's folder is in neither the answers nor the imports: add it, or delete it.

    A job whose name the template refuses is skipped.
    """
    answered = {job["name"] for job in subject.project.jobs}
    files = {subject.project.main, *subject.project.modules()}
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
        if name not in answered and not imported and _is_accepted(subject, name):
            its = [path.parent, test] if test.is_file() else [path.parent]
            shown = " ".join(map(subject.shown, its))
            yield subject.found(
                path,
                f"the job {name} is not registered (queued jobs of it still run)",
                f"chancy-workers add-job {shlex.quote(subject.project.name)} {name}, or "
                f"git rm -r {shown}",
            )


def _is_accepted(subject: Subject, name: str) -> bool:
    """Whether the template accepts a job's name; it may refuse the name of an adopted job."""
    if subject.template is None or subject.rendered is None:
        return True
    jobs = [*jobs_of(subject.answers), {"name": name}]
    with scratch_folder() as scratch:
        try:
            subject.template.render(
                subject.project, {**subject.answers, "jobs": jobs}, scratch
            )
        except Refused:
            return False
    return True


def has_jobs_without_queue(subject: Subject) -> Iterator[Finding]:
    """A job names a queue that is not declared, so no worker ever takes it.

    If QUEUES is not a list of calls, nothing is reported, because its value is unknown.
    """
    declared = {"default"}
    tree = parsed(subject.initialization)
    if not _lists_calls(tree, "QUEUES"):
        return
    for call in _calls(tree, "Queue"):
        name = _text_of(_keyword(call, "name") or next(iter(call.args), None))
        if name is None:
            return
        declared.add(name)
    for path in sorted(subject.workers.glob("*/worker.py")):
        for call in _calls(parsed(_text(path)), "job"):
            queue = _text_of(_keyword(call, "queue"))
            if queue and queue not in declared:
                yield subject.found(
                    path,
                    f"the queue {queue} is not declared, and its jobs never run",
                    f"add it to queues in {subject.project.path}, commit, then "
                    + subject.update,
                    call.lineno,
                )


@dataclass(frozen=True)
class _Tagged:
    """A Queue or a Worker that the file declares."""

    line: int
    name: str
    tags: frozenset[str]
    process: str | None = None


def has_queues_apart(subject: Subject) -> Iterator[Finding]:
    """No Worker takes a queue, or Workers in both kinds of processes take it.

    If the arguments of a call are known only at run time, nothing is reported.
    """
    tree = parsed(subject.initialization)
    file = subject.workers / "chancy_initialization.py"
    queues = [_tagged(call) for call in _calls(tree, "Queue")]
    workers = [_tagged(call) for call in _calls(tree, "Worker")]
    if not (_lists_calls(tree, "QUEUES") and all(queues) and all(workers)):
        return
    declared = [worker for worker in workers if worker]
    for queue in filter(None, queues):
        takers = [worker for worker in declared if _takes(worker, queue)]
        kinds = {worker.process for worker in takers}
        tags = ", ".join(sorted(queue.tags))
        # At run time a Worker also has tags such as hostname=… and python=….
        if not takers and "=" not in tags:
            yield subject.found(
                file,
                f"no worker takes the queue {queue.name} (its tags are {tags}), so its jobs "
                "never run",
                f"give a worker one of the tags, or remove them from the queue, in "
                f"{subject.project.path}, commit, then {subject.update}",
                queue.line,
            )
        elif any(each.process for each in declared) and kinds not in (
            {"api"},
            {"own"},
            set(),
        ):
            yield subject.found(
                file,
                f"workers in the API and in the workers' own process take the queue "
                f"{queue.name}"
                + (
                    "" if queue.tags else ", which has no tags and goes to every worker"
                ),
                "if its jobs belong in one of the two, give the queue a tag that only the "
                "workers there have",
                queue.line,
                "notice",
            )


def _tagged(call: ast.Call) -> _Tagged | None:
    """The arguments of a call of Queue or Worker; None if known only at run time."""
    name = _keyword(call, "name") or next(iter(call.args), None)
    try:
        tags, process = (
            ast.literal_eval(value) if (value := _keyword(call, key)) else None
            for key in ("tags", "process")
        )
        return _Tagged(
            call.lineno, _text_of(name) or "", frozenset(tags or ()), process
        )
    except (TypeError, ValueError):
        return None


def _takes(worker: _Tagged, queue: _Tagged) -> bool:
    """Whether a Worker takes a queue; the tags of a queue are regular expressions."""
    try:
        return not queue.tags or any(
            re.match(pattern, tag)
            for pattern in queue.tags
            for tag in (*worker.tags, "*")
        )
    except re.error:
        return True


def _lists_calls(tree: ast.AST, name: str) -> bool:
    """Whether a name is bound to a list that contains only calls."""
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
    """The calls of a function with this name."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name)):
                if name == function:
                    yield node


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    """The value of a call's keyword argument, None if it is not passed."""
    return next((each.value for each in call.keywords if each.arg == name), None)


def _text_of(node: ast.expr | None) -> str | None:
    """The value of a string literal, None for other expressions."""
    match node:
        case ast.Constant(value=str(text)):
            return text
    return None


def has_another_library(subject: Subject) -> Iterator[Finding]:
    """The library is missing or older than the workers need, or its version is unknown."""
    project = subject.project
    needed = needed_version(subject.workers)
    if needed is None:
        return
    found = [*versions_near(project)]
    for file, version in found:
        if is_older(version, needed):
            yield subject.found(
                file,
                f"{NAME} {version} is older than {needed}, which the workers need",
                "uv sync" if file.suffix == ".dist-info" else subject.update,
            )
    answers = project.file
    try:
        command = f" ({add_command(project, pin_of(project))})"
    except Refused:
        command = ""
    obstacles = [*in_the_way(project)]
    for file, problem, mend in obstacles:
        yield subject.found(file, problem, mend)
    if has_dependency(project) is False:
        yield subject.found(
            answers,
            f"{NAME} is not among the dependencies",
            f"add {needed} or newer{command}",
        )
    for extra in missing_extras(project):
        yield subject.found(
            answers,
            f"the dashboard needs the extra {extra} of {NAME}, which is not among the "
            "dependencies",
            f"add it{command}",
        )
    if has_dependency(project) is not False and not found:
        yield subject.found(
            answers,
            f"could not determine which {NAME} the service has: no lock file, no pinned "
            "requirement and no .venv has it",
            f"the workers need {needed} or newer{command}",
            level="notice",
        )


def needs_too_many_connections(subject: Subject) -> Iterator[Finding]:
    """The deployed processes need more connections than the pooler has.

    It is an error if the sizes that the files state are already too much.
    """
    project = subject.project
    if not is_deployed(project):
        return
    total = sum_of(project)
    if total.size() <= total.limit:
        return
    file = subject.workers / "chancy_initialization.py"
    line = (
        next(
            (n for n, text in _lines(file) if text.startswith("CHANCY_MAX_POOL_SIZE")),
            1,
        )
        if file.is_file()
        else 1
    )
    yield subject.found(
        file,
        str(total),
        "lower a pool here or at its place above, or maxReplicas in deploy; or raise the "
        f"pooler's pool size and pooler_connections in {project.path}, commit, then "
        + subject.update,
        line,
        "error" if total.size(stated=True) > total.limit else "notice",
    )


def is_killed_too_soon(subject: Subject) -> Iterator[Finding]:
    """The platform kills a process while its jobs may still be finishing: let it wait longer."""
    for file, line, seconds, needed in short_graces(
        subject.project, subject.initialization
    ):
        yield subject.found(
            file,
            f"gives a process {seconds} s after SIGTERM, but its shutdown_grace and the "
            f"service's shutdown take {needed} s",
            f"write {needed} or more, or lower shutdown_grace in chancy_initialization.py",
            line,
        )


def has_probes_without_routes(subject: Subject) -> Iterator[Finding]:
    """The platform probes routes that the app does not have, so it never becomes ready."""
    file = probes_without_routes(subject.project, _root_of(subject.project))
    if file is not None:
        yield subject.found(
            subject.project.main,
            f"has no /health/live and /health/ready, which {subject.shown(file)} probes, so "
            "no revision becomes ready",
            "add app.include_router(health_router(get_chancy)), with health_router from "
            f"chancy_runtime.web and get_chancy from {subject.project.package}.workers."
            "chancy_instance",
        )


def has_models_without_its_tables(subject: Subject) -> Iterator[Finding]:
    """Alembic's autogenerate would drop Chancy's tables: exclude them in env.py."""
    project = subject.project
    prefix = str(project.answers.get("prefix", f"{project.answers['service']}_"))
    root = _root_of(project)
    found = [
        (root / name, gap)
        for name in files_like(root, "env.py")
        for gap in gaps_in(_text(root / name), prefix)
    ]
    # The team's own function may call the library's function.
    if not all(gap.is_certain for _, gap in found) and files_with(
        re.escape(LIBRARY), root, "*.py"
    ):
        found = [(file, gap) for file, gap in found if gap.is_certain]
    for file, gap in found:
        level = "error" if gap.is_certain else "notice"
        yield subject.found(file, gap.problem, gap.mend, gap.line, level)


def _root_of(project: Project) -> Path:
    """The folder of the backend: the nearest one with requirements."""
    signs = ("pyproject.toml", "alembic.ini", "setup.py", "requirements*.txt")
    for folder in folders_of(project):
        if any(path.is_file() for sign in signs for path in folder.glob(sign)):
            return folder
    return project.top


def has_tests_that_start_workers(subject: Subject) -> Iterator[Finding]:
    """The service's own tests start the workers, so they need a database."""
    found = [*that_start_workers(subject.project)]
    for path, line in found[:1]:
        others = [subject.shown(other) for other, _ in found[1:]]
        also = f" (also in {first_of(others)})" if others else ""
        conftest = subject.shown(conftest_of(path, subject.project.top))
        yield subject.found(
            path,
            f"enters the lifespan of the app{also}, which starts the workers and needs "
            "their database",
            'if these tests have to pass without one, os.environ["WORKERS_MODE"] = "off" '
            f"in {conftest} (docs/testing.md of the template)",
            line,
            "notice",
        )


def has_tables_to_migrate(subject: Subject) -> Iterator[Finding]:
    """The database in the environment or the secret lacks a migration."""
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
            f"the tables are not up to date: {due or lines[-1]}",
            f"python -m {package}.workers migrate",
        )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a text file with their numbers, from 1."""
    yield from enumerate(_text(path).splitlines(), 1)


def _text(path: Path) -> str:
    """The text of a file; bytes that are not UTF-8 are replaced."""
    return path.read_text(encoding="utf-8", errors="replace")


CHECKS: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    is_answered_by_hand,
    has_missing_modules,
    has_ignored_files,
    has_old_imports,
    is_not_wired,
    has_no_way_to_the_dashboard,
    has_conflicts,
    has_jobs_without_files,
    has_files_without_jobs,
    has_jobs_without_queue,
    has_queues_apart,
    has_another_library,
    needs_too_many_connections,
    is_killed_too_soon,
    has_probes_without_routes,
    has_models_without_its_tables,
    has_tests_that_start_workers,
)
