"""Programs that start as forks of a process which has imported what they need.

`python -m copier`, uvicorn and the others below run as they do in a process of their own,
but without the CPU time of their imports, which is most of what a small one takes.
With --slow, where the environment changes Python itself, and outside of pytest, they start
the plain way.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from harness.environments import environment

# What each program imports in any case, so that its forks have nothing else. Only few of the
# tests' services do without the library or Sentry, which do nothing when they are imported.
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
# Python and the C library read these when they start.
_AT_THE_START = re.compile("PYTHON|LD_|LC_|LANG|TZ$|MALLOC_")
# Copier runs git in the environment that it was imported in.
_KEEP_THEIRS = ("copier", "chancy-workers")
_PROGRAM = Path(sys.executable).with_name("chancy-workers")
_SERVER = Path(__file__).with_name("forking.py")


class Fork:
    """A forked program, with what tests use of subprocess.Popen."""

    def __init__(self, client: socket.socket, command: Sequence[str]) -> None:
        self._client = client
        self.args = command
        self.returncode: int | None = None
        self.pid = self._read()

    def _read(self) -> int:
        answer = self._client.recv(8)
        assert len(answer) == 8, f"the process that forks is gone: {self.args}"
        return int.from_bytes(answer, "big", signed=True)

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self._client.settimeout(timeout)
            try:
                self.returncode = self._read()
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
        """Starts a program as a fork; None where only a process of its own will do."""
        name = _name(command)
        if not (self.on and name):
            return None
        ours = self._environments.setdefault(name, environment())
        if _read_once(name, ours) != _read_once(name, env):
            return None
        request = {
            "command": command if name == "chancy-workers" else command[1:],
            "folder": str(folder),
            "environment": dict(env),
            "session": session,
        }
        data = json.dumps(request).encode()
        client = self._connect(name)
        with open(os.devnull) as stdin:
            streams = [stdin.fileno(), stdout, stderr]
            socket.send_fds(client, [len(data).to_bytes(8, "big")], streams)
            client.sendall(data)
            return Fork(client, command)

    def _connect(self, name: str) -> socket.socket:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="forks-", dir="/tmp"))
        path = self._folder / name
        if name not in self._running:
            self._running[name] = subprocess.Popen(
                [sys.executable, str(_SERVER), str(path), *MODULES[name]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=self._environments[name],
                start_new_session=True,
            )
            stdout = self._running[name].stdout
            assert stdout and stdout.readline() == b"ready\n"
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(path))
        return client

    def stop(self) -> None:
        """Ends them, and what they have forked counts as used by this process."""
        for process in self._running.values():
            process.communicate()
        self._running.clear()
        if self._folder:
            shutil.rmtree(self._folder)
            self._folder = None


FORKS = Forks()


def _name(command: Sequence[str]) -> str | None:
    """What a command starts, if it is in MODULES."""
    if command[0] == str(_PROGRAM):
        return _PROGRAM.name
    if command[:2] != [sys.executable, "-m"]:
        return None
    name = "workers" if command[2].endswith(".workers") else command[2]
    return name if name in MODULES else None


def _read_once(name: str, env: Mapping[str, str]) -> dict[str, str]:
    """The variables that a program has read before it is forked."""
    if name in _KEEP_THEIRS:
        return dict(env)
    return {name: value for name, value in env.items() if _AT_THE_START.match(name)}
