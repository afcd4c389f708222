"""Programs that start as forks of a process that has imported their modules.

`python -m copier`, uvicorn and the others below run like they do in a process of their own,
but without the CPU time of their imports, which is most of the time of a small program.
With --slow, outside of pytest, and if the environment changes Python itself, they start as
normal processes.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.asking import answer_of, ask
from harness.environments import environment

# The modules that each program imports in any case, and no others. Few of the tests' services
# do not need the library or Sentry, but importing these has no effect.
_SENTRY = "chancy_runtime.plugins.sentry"
MODULES = {
    "copier": ("copier._cli", "jinja2_ansible_filters"),
    "chancy-workers": ("chancy_workers.cli",),
    "uvicorn": (
        *("chancy_runtime.web", _SENTRY),
        *("uvicorn.main", "uvicorn.protocols.http.h11_impl"),
    ),
    "workers": ("chancy_runtime.cli", _SENTRY),
    "pytest": ("pytest", "chancy_runtime.testing"),
}
# Python and the C library read these variables when they start.
_AT_THE_START = re.compile("PYTHON|LD_|LC_|LANG|TZ$|MALLOC_")
_PROGRAM = Path(sys.executable).with_name("chancy-workers")
_SERVER = Path(__file__).with_name("forking.py")
# The program that replaces Python in a fork of chancy-workers, which runs Copier.
_PYTHON = """\
#!{python} -IS
import sys
sys.path.insert(0, {tests!r})
from harness.asking import run
run({socket!r}, {python!r}, sys.argv[1:])
"""


class Fork:
    """A forked program, with the methods of subprocess.Popen that tests use."""

    def __init__(self, client: socket.socket, command: Sequence[str]) -> None:
        self._client = client
        self.args = command
        self.returncode: int | None = None
        self.pid = answer_of(client)

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._client.settimeout(timeout)
            try:
                self.returncode = answer_of(self._client)
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self._client.close()
        return self.returncode

    def poll(self) -> int | None:
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forks:
    """The processes that fork, one for each kind of program; they end with this one."""

    def __init__(self) -> None:
        self.on = False
        self._folder: Path | None = None
        self._environments: dict[str, dict[str, str]] = {}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._starting = threading.Lock()

    def start(
        self,
        command: Sequence[str],
        folder: Path,
        env: Mapping[str, str],
        *,
        stdout: int,
        stderr: int,
        session: bool = False,
    ) -> Fork | None:
        """Starts a program as a fork; None if it needs a process of its own."""
        name = _name(command)
        if not (self.on and name):
            return None
        ours = self._environments.setdefault(name, environment())
        if _read_once(ours) != _read_once(env):
            return None
        is_ours = name == _PROGRAM.name
        request = {
            "command": command if is_ours else command[1:],
            "folder": str(folder),
            "environment": dict(env),
            "session": session,
            "python": str(self.python()) if is_ours else sys.executable,
        }
        path = self._path_of(name)
        with open(os.devnull) as stdin:
            return Fork(
                ask(str(path), request, (stdin.fileno(), stdout, stderr)), command
            )

    def python(self) -> Path:
        """A program that runs `python -m copier` as a fork, and Python for all others."""
        asked = self._path_of("copier")
        program = asked.with_name("python")
        if not program.exists():
            text = _PYTHON.format(
                python=sys.executable,
                tests=str(_SERVER.parents[1]),
                socket=str(asked),
            )
            program.write_text(text)
            program.chmod(0o755)
        return program

    def _path_of(self, name: str) -> Path:
        """The socket of the process that forks a program."""
        # Tests start programs in threads too.
        with self._starting:
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="forks-", dir="/tmp"))
            path = self._folder / name
            if name not in self._running:
                env = self._environments.setdefault(name, environment())
                self._running[name] = subprocess.Popen(
                    [sys.executable, str(_SERVER), str(path), *MODULES[name]],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    env=env,
                    start_new_session=True,
                )
                stdout = self._running[name].stdout
                assert stdout and stdout.readline() == b"ready\n"
        return path

    def stop(self) -> None:
        """Ends them; the CPU time of their forks then counts as that of this process."""
        for process in self._running.values():
            process.communicate()
        self._running.clear()
        if self._folder:
            shutil.rmtree(self._folder)
            self._folder = None


FORKS = Forks()


def _name(command: Sequence[str]) -> str | None:
    """The name in MODULES of the program that a command starts, if it is there."""
    if command[0] == str(_PROGRAM):
        return _PROGRAM.name
    if command[:2] != [sys.executable, "-m"]:
        return None
    name = "workers" if command[2].endswith(".workers") else command[2]
    return name if name in MODULES else None


def _read_once(env: Mapping[str, str]) -> dict[str, str]:
    """The variables that a program has read before it is forked."""
    return {name: value for name, value in env.items() if _AT_THE_START.match(name)}
