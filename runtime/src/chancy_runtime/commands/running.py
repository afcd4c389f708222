"""Runs the workers of a service in a process of their own, with HTTP for its probes.

Needs uvicorn and FastAPI; `reload` needs watchfiles.
"""

import importlib
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from chancy_runtime.app import Chancy
from chancy_runtime.errors import WorkersError
from chancy_runtime.modes import this_process

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

# Seconds for an open request; the workers stop at the signal, and not after it.
_REQUEST_TIMEOUT = 5


@dataclass(frozen=True, kw_only=True)
class OwnProcess:
    """The workers of a service, to run in this process.

    Args:
        package: Their package, for the messages.
        initialize_workers: Runs the workers while it is entered.
        get_chancy: Returns the running Chancy, or raises a RuntimeError.
        app_module: The module with the API's app; importing it sets up logs and Sentry.
    """

    package: str
    initialize_workers: Callable[[], AbstractAsyncContextManager[None]]
    get_chancy: Callable[[], Chancy]
    app_module: str | None = None

    def run(self, *, host: str, port: int) -> int:
        """Runs until a signal stops it; returns the exit status.

        That is 0 after a stop in which every job ended or went back to its queue. It is 1
        when the start failed, when the workers ended and nobody had asked them to, when
        their last results were not saved, and when a second SIGINT cut the stop short.

        Raises:
            WorkersError: A package is missing.
        """
        try:
            import fastapi  # noqa: F401
            import uvicorn
        except ImportError as error:
            raise WorkersError(
                f"run serves HTTP for the platform's probes and needs {error.name}: "
                "uv add fastapi uvicorn"
            ) from error
        stop = _Stop(self)
        config = uvicorn.Config(
            lambda: self._app(stop),
            factory=True,
            host=host,
            port=port,
            access_log=False,
            timeout_graceful_shutdown=_REQUEST_TIMEOUT,
            callback_notify=stop.look,
            timeout_notify=1,
        )
        stop.server = server = uvicorn.Server(config)
        for number in (signal.SIGINT, signal.SIGTERM):
            # uvicorn raises what it caught once more at the end.
            signal.signal(number, server.handle_exit)
        try:
            server.run()
        except SystemExit:  # Its log says why.
            return 1
        return 0 if stop.is_clean else 1

    def _app(self, stop: "_Stop") -> "FastAPI":
        """Returns what is served, after the API's module has set up the logs."""
        from fastapi import FastAPI

        from chancy_runtime.web import health_router

        if self.app_module:
            importlib.import_module(self.app_module)
        app = FastAPI(lifespan=stop.lifespan, openapi_url=None)
        app.include_router(health_router(self.get_chancy))
        return app

    def open_chancy(self) -> Chancy | None:
        """Returns the running Chancy; None while the workers wait for their database."""
        try:
            return self.get_chancy()
        except RuntimeError:
            return None


class _Stop:
    """How the workers of this process end.

    Attributes:
        is_clean: Whether they stopped because a signal came, and saved what they had.
    """

    def __init__(self, process: OwnProcess) -> None:
        self._process = process
        self._have_started = False
        self._are_lost = False
        self.is_clean = False
        self.server: uvicorn.Server

    @asynccontextmanager
    async def lifespan(self, _app: object) -> AsyncIterator[None]:
        async with self._process.initialize_workers():
            if chancy := self._process.open_chancy():
                _refuse_unknown_tags(chancy, self._process.package)
            yield
            chancy = self._process.open_chancy()
        saved = chancy is None or not chancy.has_unsaved_results
        self.is_clean = saved and not self._are_lost

    async def look(self) -> None:
        """Ends the process when its workers have ended; the platform starts it again."""
        chancy = self._process.open_chancy()
        if chancy and chancy.workers:
            self._have_started = True
        elif chancy and self._have_started and not self.server.should_exit:
            chancy.log.error(
                "the workers have stopped and nobody asked them to: the process ends, so "
                "that it is started again"
            )
            self._are_lost = self.server.should_exit = True


def _refuse_unknown_tags(chancy: Chancy, package: str) -> None:
    """Makes sure that a Worker runs here, for each of the tags that were asked for.

    Raises:
        WorkersError: None does.
    """
    asked = this_process().tags
    known = {
        tag for worker in (*chancy.workers, *chancy.elsewhere) for tag in worker.tags
    }
    tags = ", ".join(sorted(known)) or "none"
    if unknown := ", ".join(sorted(asked - known)):
        raise WorkersError(
            f"no Worker of {package} has the tag {unknown}: --tags takes {tags}"
        )
    if not chancy.workers:
        raise WorkersError(
            f"every Worker of {package} is for the API: name the tags of those that run "
            f"here with --tags ({tags}), or give one process=\"own\""
        )


def run_again_on_changes(command: list[str], folder: Path) -> int:
    """Runs a command, again after each change of a Python file, until a signal comes.

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
        for _changes in watch(
            folder, watch_filter=PythonFilter(), raise_interrupt=False
        ):
            print("a file has changed: the workers start again", file=sys.stderr)
            # SIGINT would come twice where a terminal sends it too.
            process.terminate()
            process.wait()
            process = subprocess.Popen(command)
    finally:
        process.terminate()
        process.wait()
    return 0
