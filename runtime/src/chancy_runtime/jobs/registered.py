"""The functions and executors that the rows of the tables may name.

A row names a function to import and call, so anybody who can write a row could run any
importable function. Therefore each name is compared with the service's registered names
before any import. For a module that is not loaded yet, they are read from its source.
"""

import ast
import logging
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import chancy
from chancy import Job

from chancy_runtime.settings import Settings


class NotRegistered(ImportError):
    """A row names a function or an executor that is not registered."""


class Registered:
    """The functions and executors that rows may name.

    Registered functions are those with @job below the service's package, those with @job
    below the packages in the setting `also_registered`, and the functions in that setting.
    Registered executors are those of Chancy, those of the queues that the service declares,
    and those in the setting.

    Args:
        package: The package of the workers. Without it, all functions with @job count.
        settings: The service's settings.
        where: The package in which the settings can be changed, for the messages.
        log: Gets one warning for each name that is not registered but still may run.
    """

    def __init__(
        self,
        package: str | None,
        settings: Settings,
        *,
        where: str,
        log: logging.Logger,
    ) -> None:
        self._service = package.removesuffix(".workers") if package else ""
        self._also = frozenset(settings.also_registered)
        self._enforces = settings.only_registered
        self._where = where
        self._log = log
        # By the name in a row, the name that this process imports.
        self._functions: dict[str, str] = {}
        self._executors: set[str] = {
            *map(str, chancy.Chancy.Executor),
            *self._also,
        }

    def add_executors(self, names: Iterable[str]) -> None:
        """Registers the executors that the service's own code names."""
        self._executors.update(names)

    def check_function(self, name: str) -> str:
        """Makes sure that jobs may run a function; imports nothing.

        Returns:
            The name to import here: a process that was started from another folder pushes
            `workers.send_digest…` for the job `app.billing.workers.send_digest…`.

        Raises:
            NotRegistered: Jobs may not run the function.
        """
        if known := self._functions.get(name):
            return known
        known = name
        if name not in self._also and not self._is_job(name):
            known = self._name_here(name)
        if not known:
            below = f" below {self._service}" if self._service else ""
            self._object(f"the function {name}", f"decorate it with @job{below}")
        return self._functions.setdefault(name, known or name)

    def check_executor(self, name: str) -> None:
        """Makes sure that queues may have an executor; imports nothing.

        Raises:
            NotRegistered: Queues may not have the executor.
        """
        if name not in self._executors:
            self._object(f"the executor {name}", "pass its queue to declare_queues()")
            self._executors.add(name)

    def _object(self, what: str, way_out: str) -> None:
        way_out = (
            f"{way_out}, or add it to also_registered of Settings in {self._where} "
            "(docs/security.md)"
        )
        if self._enforces:
            raise NotRegistered(f"{what} is not registered and does not run: {way_out}")
        self._log.warning(
            "%s is not registered: a row of the database names it, and it runs only "
            "because only_registered of Settings is False: %s",
            *(what, way_out),
        )

    def _name_here(self, name: str) -> str:
        """Returns the name here of a job that a process in a folder above or below pushed.

        Returns an empty string if the service has no such job.
        """
        if not self._service:
            return ""
        above, parts = self._service.split("."), name.split(".")
        folders = _folders_above(above[0])
        names = [
            *(".".join([*above[:end], name]) for end in range(1, len(above) + 1)),
            *(
                ".".join(parts[start:])
                for start in range(1, len(parts))
                # Another service's job must not be taken for the one of that name here.
                if tuple(parts[:start]) == folders[-start:]
            ),
        ]
        return next(filter(self._is_job, names), "")

    def _is_job(self, name: str) -> bool:
        """Whether a function has @job, below one of the packages."""
        packages = (self._service, *self._also)
        if not any(not each or name.startswith(f"{each}.") for each in packages):
            return False
        module, _, function = name.rpartition(".")
        if (loaded := sys.modules.get(module)) is None:
            return function in _jobs_in(module)
        # Not with getattr(module, …): a module's __getattr__ may import something.
        return isinstance(getattr(vars(loaded).get(function), "job", None), Job)


def _jobs_in(module: str) -> set[str]:
    """Returns the names of a module's functions with @job, without an import."""
    try:
        tree = ast.parse(_source_of(module))
    except (OSError, RecursionError, SyntaxError, ValueError):
        return set()
    names = {"job"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names |= {each.asname or "" for each in node.names if each.name == "job"}
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and any(_is_named(each, names) for each in node.decorator_list)
    }


def _is_named(decorator: ast.expr, names: set[str]) -> bool:
    match decorator:
        case ast.Call(func=ast.Attribute(attr=name)) | ast.Attribute(attr=name):
            return name == "job"
        case ast.Call(func=ast.Name(id=name)) | ast.Name(id=name):
            return name in names
    return False


def _source_of(module: str) -> bytes:
    """Reads the source of a module, without importing it or the packages above it.

    Raises:
        OSError: The source was not found.
    """
    parts = module.split(".")
    if not all(map(str.isidentifier, parts)):
        raise FileNotFoundError(module)
    file, folders = None, [*map(Path, sys.path)]
    for end, part in enumerate(parts, start=1):
        loaded = sys.modules.get(".".join(parts[:end]))
        if loaded is not None and end < len(parts):
            folders = [*map(Path, getattr(loaded, "__path__", ()))]
        else:
            file, folders = _found(part, folders)
    if file is None:
        raise FileNotFoundError(module)
    return file.read_bytes()


def _found(name: str, folders: list[Path]) -> tuple[Path | None, list[Path]]:
    """Returns the file that Python would import, and the folders of its submodules."""
    portions = []
    for folder in folders:
        if (file := folder / name / "__init__.py").is_file():
            return file, [folder / name]
        if (file := folder / f"{name}.py").is_file():
            return file, []
        if (folder / name).is_dir():
            portions.append(folder / name)
    return None, portions


def _folders_above(name: str) -> tuple[str, ...]:
    """Returns the names of the folders above a package or module, which is not imported."""
    if (spec := find_spec(name)) is None:
        return ()
    places = [*(spec.submodule_search_locations or ()), spec.origin or ""]
    return Path(places[0]).parent.parts
