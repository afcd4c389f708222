"""Shows the template at work: renders a backend, boots it and runs jobs over HTTP.

    uv run demo [--keep DIR]

Everything is real (Copier, PostgreSQL, uvicorn). No process and no folder is left behind,
not even after Ctrl-C. The exit status is 0 if every job ran, 1 if something failed, 130
after Ctrl-C and 143 after SIGTERM.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import IO, Any, NoReturn, TypeVar

from rich.console import Console
from rich.progress import Progress

from .source import task, template

SUMMARY = (__doc__ or "").split("\n")[0]
SERVICE = "billing"
JOB = "send_digest"
JOBS = 50
START_TIMEOUT = 30
JOBS_TIMEOUT = 30
STOP_TIMEOUT = 35
# Variables that may be set for other projects and would misdirect this one.
OF_OTHERS = re.compile(
    "VIRTUAL_ENV|PYTHON(PATH|HOME)|UV_(PROJECT|WORKING_DIR|FROZEN|LOCKED|ENV_FILE)|"
    "UVICORN_|WEB_CONCURRENCY|LOG_LEVEL|SENTRY_|AZURE_|WORKERS_|POSTGRES_|PG"
)

console = Console(highlight=False)
Resource = TypeVar("Resource")


class DemoError(Exception):
    """A failure, with the output of the failed command."""


class Stopped(BaseException):
    """A signal asked the demo to stop."""

    def __init__(self, signum: int) -> None:
        self.status = 128 + signum


def main() -> NoReturn:
    """Runs the demo and exits with its status."""
    parser = argparse.ArgumentParser(prog="demo", description=SUMMARY)
    _add_arguments(parser)
    sys.exit(run(parser.parse_args()))


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = commands.add_parser(
        "demo", help="show the template at work", description=SUMMARY
    )
    _add_arguments(parser)
    parser.set_defaults(run=run)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keep",
        metavar="DIR",
        type=_new_folder,
        help="render into DIR and leave it there",
    )


def _new_folder(text: str) -> Path:
    folder = Path(text)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise argparse.ArgumentTypeError(
            f"{folder} exists and is not empty: name a new folder"
        )
    return folder.resolve()


def run(arguments: argparse.Namespace) -> int:
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, signals.arrive)
    try:
        with ExitStack() as stack:
            _show(stack, arguments.keep)
    except Stopped as stopped:
        console.print("[yellow]Stopped[/]: everything was cleaned up.")
        return stopped.status
    except (
        DemoError,
        LookupError,
        OSError,
        RuntimeError,
        subprocess.SubprocessError,
    ) as error:
        console.print("[red]Failed[/]: ", end="")
        console.print(str(error), markup=False, soft_wrap=True)
        return 1
    return 0


def _show(stack: ExitStack, keep: Path | None) -> None:
    """Renders, migrates, boots and runs the jobs; `stack` cleans everything up.

    Raises:
        DemoError: A step failed.
    """
    began = time.monotonic()
    scratch = Path(stack.enter_context(_scratch_folder()))
    backend = keep or scratch / "backend"
    place = template()

    with _step("Rendering a backend with the service billing"):
        with signals.held():
            import copier  # Imported here, because the import takes a second.
        copier.run_copy(
            place,
            backend,
            data={"scope": "backend", "service": SERVICE},
            vcs_ref="HEAD" if Path(place, ".git").exists() else None,
            defaults=True,
            unsafe=True,
            quiet=True,
        )
    with _step("Installing its packages"):
        _call([_uv(), "sync", "--quiet"], cwd=backend)
    with _step("Starting PostgreSQL"):
        url = stack.enter_context(_postgresql(scratch)).url
    environment = {**_environment(), "WORKERS_DATABASE_URL": url}
    python = str(backend / ".venv" / "bin" / "python")
    with _step("Creating Chancy's tables"):
        _call(
            [python, "-m", f"app.{SERVICE}.workers", "migrate"],
            cwd=backend,
            environment=environment,
        )
    with _step("Booting the service under uvicorn"):
        log = stack.enter_context((scratch / "service.log").open("w+"))
        service = stack.enter_context(_service(python, backend, environment, log))
        address = _wait_until_up(service, log)

    _run_jobs(address)
    with _step("Stopping the service with SIGTERM"):
        service.terminate()
        status = service.wait(STOP_TIMEOUT)
        # uvicorn leaves the lifespan, then kills itself with the signal that it got.
        if status != -signal.SIGTERM or "shutdown complete" not in _text(log):
            raise DemoError(f"uvicorn ended with {status}:\n{_last_lines(log)}")

    console.print("\nWhat the service logged, one line for each event:\n")
    lines = [line for line in _text(log).splitlines() if f"{JOB} ran" in line]
    for line in lines[:3]:
        console.print(f"  {line}", markup=False, soft_wrap=True)
    console.print(f"  … and {len(lines) - 3} more\n")
    console.print(
        f"[green]{len(lines)} jobs ran[/] in a service that did not exist "
        f"{time.monotonic() - began:.0f} seconds ago. To go on:\n"
    )
    if keep:
        console.print(f"  cd {keep} && uv run pytest", soft_wrap=True)
    else:
        console.print("  uv run demo --keep my-backend", soft_wrap=True)
    console.print("  README.md, “Add workers to a service”")


def _run_jobs(address: str) -> None:
    """Pushes the jobs over HTTP and waits until all have succeeded."""
    with Progress(console=console, transient=True) as progress:
        pushing = progress.add_task("Pushing jobs over HTTP", total=JOBS)
        pending = []
        for number in range(JOBS):
            answer = _request(
                f"{address}/jobs/{JOB}?note=number+{number}", method="POST"
            )
            pending.append(answer["id"])
            progress.advance(pushing)
        running = progress.add_task("Running them", total=JOBS)
        deadline = time.monotonic() + JOBS_TIMEOUT
        while pending:
            states = {id: _request(f"{address}/jobs/{id}")["state"] for id in pending}
            if "failed" in states.values() or time.monotonic() > deadline:
                raise DemoError(f"jobs did not succeed: {states}")
            pending = [id for id in pending if states[id] != "succeeded"]
            progress.update(running, completed=JOBS - len(pending))
            time.sleep(0.05)
    console.print(f"[green]✓[/] Pushed and ran {JOBS} jobs")


@contextmanager
def _started(
    start: Callable[[], Resource], stop: Callable[[Resource], object]
) -> Iterator[Resource]:
    """Yields the result of `start`; a signal arrives before it or makes `stop` run."""
    with ExitStack() as stack:
        with signals.held(), _blocked_in_children():
            resource = start()
            stack.callback(_undisturbed, stop, resource)
        yield resource


def _undisturbed(stop: Callable[[Resource], object], resource: Resource) -> None:
    with signals.held(), _blocked_in_children():
        stop(resource)


def _scratch_folder() -> AbstractContextManager[str]:
    return _started(
        lambda: tempfile.mkdtemp(prefix="chancy-workers-demo-"), shutil.rmtree
    )


def _postgresql(scratch: Path) -> AbstractContextManager[Any]:
    """A PostgreSQL server only for the demo, on a socket."""
    with signals.held():
        embedded = task("embedded")
    folder = scratch / "postgresql"
    folder.mkdir()
    return _started(
        lambda: embedded.EmbeddedServer(folder), embedded.EmbeddedServer.stop
    )


def _service(
    python: str, backend: Path, environment: dict[str, str], log: IO[str]
) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """uvicorn in its own process and session, so that only the demo gets Ctrl-C."""
    return _started(
        lambda: subprocess.Popen(
            [python, "-m", "uvicorn", f"app.{SERVICE}.main:app", "--port", "0"],
            cwd=backend,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ),
        _stop_service,
    )


def _stop_service(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait_until_up(service: subprocess.Popen[bytes], log: IO[str]) -> str:
    """Returns the address that uvicorn chose, once it accepts requests."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and service.poll() is None:
        if address := re.search(r"running on (http://\S+)", _text(log)):
            return address[1]
        time.sleep(0.05)
    raise DemoError(f"the service did not start:\n{_last_lines(log)}")


def _text(log: IO[str]) -> str:
    return Path(log.name).read_text()


def _last_lines(log: IO[str]) -> str:
    return "\n".join(_text(log).splitlines()[-20:])


def _request(url: str, method: str = "GET") -> dict[str, str]:
    # The service is on this machine, so a proxy in the environment is ignored.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    request = urllib.request.Request(url, method=method)
    with opener.open(request, timeout=10) as response:
        answer: dict[str, str] = json.load(response)
        return answer


def _call(
    command: list[str], *, cwd: Path, environment: dict[str, str] | None = None
) -> None:
    result = subprocess.run(
        command,
        cwd=cwd,
        env=environment or _environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    if result.returncode != 0:
        raise DemoError(
            f"{' '.join(command)} ended with {result.returncode}:\n{result.stdout}"
        )


def _environment() -> dict[str, str]:
    """This process's environment without the variables of other projects."""
    return {
        name: value for name, value in os.environ.items() if not OF_OTHERS.match(name)
    }


def _uv() -> str:
    """The uv that runs the demo, or the one on the path."""
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        raise DemoError(
            "uv is not installed: run PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install uv"
        )
    return uv


@contextmanager
def _step(title: str) -> Iterator[None]:
    began = time.monotonic()
    with console.status(title):
        yield
    console.print(f"[green]✓[/] {title} [dim]{time.monotonic() - began:.1f} s[/]")


class _Signals:
    """Turns SIGINT and SIGTERM into Stopped; while held, only afterwards."""

    def __init__(self) -> None:
        self.holders = 0
        self.arrived: int | None = None

    def arrive(self, signum: int, _frame: FrameType | None) -> None:
        self.arrived = signum
        self._raise_unless_held()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lets a start or a cleanup finish before a signal takes effect."""
        self.holders += 1
        try:
            yield
        finally:
            self.holders -= 1
        self._raise_unless_held()

    def _raise_unless_held(self) -> None:
        if self.arrived is not None and not self.holders:
            signum, self.arrived = self.arrived, None
            raise Stopped(signum)


@contextmanager
def _blocked_in_children() -> Iterator[None]:
    """Keeps Ctrl-C from commands that run in the demo's own process group."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


signals = _Signals()

if __name__ == "__main__":
    main()
