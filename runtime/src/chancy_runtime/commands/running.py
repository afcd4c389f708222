"""The command `run`: the workers in a process of their own, with HTTP beside them."""

import argparse
import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from chancy_runtime.app import Chancy
from chancy_runtime.commands.program import Parsers, Program, add_command
from chancy_runtime.errors import WorkersError
from chancy_runtime.modes import Process, become, this_process
from chancy_runtime.start import JoiningWorkers

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

# Seconds for open requests. The workers do not wait for these: the signal stops them.
_REQUEST_TIMEOUT = 5
_LOOK_INTERVAL = 1


def add_commands(parsers: Parsers) -> None:
    """Adds `run`."""
    text = "run the workers in this process, with HTTP for the platform's probes"
    parser = add_command(parsers, "run", run, text)
    parser.allow_abbrev = False
    parser.epilog = (
        "Exit status: 0 after SIGTERM or SIGINT; 1 when the start failed, when the workers "
        "ended without a signal, or when their last results could not be saved."
    )
    parser.add_argument(
        "--tags",
        type=_tags,
        default=frozenset(),
        metavar="TAG[,TAG]",
        help="run only the Workers that have one of these tags, even those for the API",
    )
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="the address for HTTP (127.0.0.1 without it); 0.0.0.0 for probes from outside",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=8001,
        help="the port for HTTP (8001 without it); 0 for any free port",
    )
    parser.add_argument(
        "--reload", action="store_true", help="start again when a Python file changes"
    )


def _tags(text: str) -> frozenset[str]:
    tags = frozenset(tag.strip() for tag in text.split(","))
    if "" in tags:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list such as heavy,other")
    return tags


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


def run(program: Program, arguments: argparse.Namespace) -> int:
    """Runs the workers until a signal stops them; returns the exit status.

    Raises:
        WorkersError: A package is missing, or __main__.py does not pass the workers.
    """
    if program.initialize_workers is None or program.get_chancy is None:
        raise WorkersError(
            "run needs initialize_workers and get_chancy, but __main__.py does not pass "
            "them to main(): run chancy-workers update, or pass them"
        )
    if arguments.reload:
        options = [each for each in sys.argv[1:] if each != "--reload"]
        command = [sys.executable, "-m", str(program.package), *options]
        return _run_again_on_changes(command, Path.cwd())
    become(Process(kind="own", tags=arguments.tags))
    workers = _Workers(program.initialize_workers, program.get_chancy)
    return _serve(workers, program, arguments.host, arguments.port)


def _serve(workers: "_Workers", program: Program, host: str, port: int) -> int:
    try:
        import fastapi  # noqa: F401
        import uvicorn
    except ImportError as error:
        raise WorkersError(
            f"run serves HTTP for the platform's probes and needs {error.name}: "
            "uv add fastapi uvicorn"
        ) from error
    config = uvicorn.Config(
        lambda: _app(workers, program),
        factory=True,
        host=host,
        port=port,
        access_log=False,
        timeout_graceful_shutdown=_REQUEST_TIMEOUT,
        callback_notify=workers.look,
        timeout_notify=_LOOK_INTERVAL,
    )
    workers.server = server = uvicorn.Server(config)
    for number in (signal.SIGINT, signal.SIGTERM):
        # Before it ends, uvicorn raises the signals again that it caught.
        signal.signal(number, server.handle_exit)
    try:
        server.run()
    except SystemExit:  # Its log says why.
        return 1
    # Processes that jobs started and did not end: Python would wait for them at the exit.
    for child in multiprocessing.active_children():
        child.kill()
    return 0 if workers.ended_well else 1


def _app(workers: "_Workers", program: Program) -> "FastAPI":
    """Returns the app to serve, after the API's module has set up logs and Sentry."""
    from fastapi import FastAPI

    from chancy_runtime.web import health_router, metrics_router

    if program.app_module:
        _import_app(program.app_module, program.package or "")
    app = FastAPI(lifespan=workers.lifespan, openapi_url=None)
    app.include_router(health_router(workers.get_chancy))
    if find_spec("prometheus_client"):
        app.include_router(metrics_router(workers.get_chancy))
    if program.dashboard:
        app.include_router(program.dashboard)
    return app


def _import_app(module: str, package: str) -> None:
    """Imports the module of the API's app.

    In a process that was started in a folder further down, it has a shorter name.

    Raises:
        WorkersError: Its imports are those of an API that is started in another folder.
    """
    parts = module.split(".")
    for name in (".".join(parts[start:]) for start in range(len(parts))):
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if f"{name}.".startswith(f"{error.name}."):
                continue  # It has no such name here.
            if not (found := _start_of(error.name or "", package)):
                raise
            folder, its_package = found
            raise WorkersError(
                f"{name} imports {error.name}, which is not installed, but {folder} has a "
                f"module of that name. If the API is started there, with {its_package} as "
                f"the package of its workers, start the workers there too: cd {folder} && "
                f"python -m {its_package} run. Otherwise install {error.name}"
            ) from error
        except ImportError as error:
            if name == module or "relative import" not in str(error):
                raise
            above = module.removesuffix(name)
            raise WorkersError(
                f"{module} is {name} here, and its imports are relative ({error}): run this "
                f"command in the folder that has {above.partition('.')[0]}/, as python -m "
                f"{above}{package} run"
            ) from error
        return
    importlib.import_module(module)  # Raises the error of the whole name.


def _start_of(missing: str, package: str) -> tuple[str, str] | None:
    """Returns the folder with a missing module, and the name of the workers there.

    Returns None if none of the folders above the workers has it.
    """
    paths: list[str] = [*getattr(sys.modules.get(package), "__path__", ())]
    if not paths:
        return None
    parts = package.split(".")
    folders = Path(paths[0]).parents
    for start, folder in zip(range(len(parts) - 1, 0, -1), folders, strict=False):
        files = [folder / f"{missing}.py", *(folder / missing).glob("*.py")]
        if any(file.is_file() for file in files):
            return os.path.relpath(folder), ".".join(parts[start:])
    return None


class _Workers:
    """The workers of this process, and how they end.

    Args:
        initialize: Runs the workers while it is entered.
        get_chancy: Returns the running Chancy, or raises a RuntimeError.

    Attributes:
        server: The HTTP server; the process ends with it.
        ended_well: Whether a signal stopped the workers, with all results saved.
    """

    server: "uvicorn.Server"

    def __init__(
        self,
        initialize: Callable[[], AbstractAsyncContextManager[None]],
        get_chancy: Callable[[], Chancy],
    ) -> None:
        self.get_chancy = get_chancy
        self.ended_well = False
        self._initialize = initialize
        self._have_started = False
        self._are_lost = False
        if isinstance(initialize, JoiningWorkers):
            initialize.have_joined = self._have_joined

    @asynccontextmanager
    async def lifespan(self, _app: object) -> AsyncIterator[None]:
        async with self._initialize():
            if chancy := self._open_chancy():
                _refuse_unknown_tags(chancy)
                self._have_started = True
            yield
            chancy = self._open_chancy()
        results_are_saved = chancy is None or not chancy.has_unsaved_results
        self.ended_well = results_are_saved and not self._are_lost

    def _have_joined(self) -> None:
        """Ends the process if `--tags` selects none of its workers; HTTP is up already."""
        chancy = self.get_chancy()
        try:
            _refuse_unknown_tags(chancy)
        except WorkersError as refused:
            chancy.log.error("%s", refused)
            self._are_lost = self.server.should_exit = True

    async def look(self) -> None:
        """Ends the process when its workers have ended, so that the platform restarts it."""
        chancy = self._open_chancy()
        if chancy and chancy.workers:
            self._have_started = True
        elif chancy and self._have_started and not self.server.should_exit:
            chancy.log.error(
                "the workers have stopped without a signal: the process ends, so that the "
                "platform starts it again"
            )
            self._are_lost = self.server.should_exit = True

    def _open_chancy(self) -> Chancy | None:
        """Returns the running Chancy; None while the workers wait for their database."""
        try:
            return self.get_chancy()
        except RuntimeError:
            return None


def _refuse_unknown_tags(chancy: Chancy) -> None:
    """Makes sure that each tag of `--tags` belongs to a Worker, and that a Worker runs here.

    Raises:
        WorkersError: A tag belongs to no Worker, or no Worker runs here.
    """
    found = [*chancy.workers, *chancy.elsewhere]
    known = sorted({tag for worker in found for tag in worker.tags})
    tags = ", ".join(known) or "nothing, because no Worker has tags"
    if unknown := this_process().tags.difference(known):
        raise WorkersError(
            f"no Worker of {chancy.package} has the tag {', '.join(sorted(unknown))}: "
            f"--tags takes {tags}"
        )
    if not chancy.workers:
        raise WorkersError(
            f"every Worker of {chancy.package} is for the API: name the tags of those that "
            f"run here with --tags, which takes {tags}, or give a Worker process='own'"
        )


def _run_again_on_changes(command: list[str], folder: Path) -> int:
    """Runs a command, and again after each change of a Python file, until a signal comes.

    Raises:
        WorkersError: watchfiles is missing.
    """
    try:
        from watchfiles import PythonFilter, watch
    except ImportError as error:
        raise WorkersError(
            "run --reload needs watchfiles: uv add --dev watchfiles"
        ) from error
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    process = subprocess.Popen(command)
    try:
        for _ in watch(folder, watch_filter=PythonFilter(), raise_interrupt=False):
            print("a Python file has changed: the workers start again", file=sys.stderr)
            # Not SIGINT: Ctrl-C sends one too, and a second SIGINT ends without a grace.
            process.terminate()
            process.wait()
            process = subprocess.Popen(command)
    except KeyboardInterrupt:
        pass  # The signal came while a process ended or started.
    finally:
        process.terminate()
        process.wait()
    return 0
