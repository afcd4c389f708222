"""Runs Python programs in forks of this process, which has imported their packages.

Usage: python forking.py SOCKET MODULE...

Each connection to the socket asks for one program, which runs as `python -m` or a script
does, with the environment, the folder and the streams of the client. This process ends
when its own standard input is closed. harness.forks is the other side.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import sys
import tempfile
import threading
from typing import Any, NoReturn


def serve(path: str) -> dict[str, Any]:
    """Forks until standard input is closed; returns in each fork, with its request."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        print("ready", flush=True)
        while True:
            ready, _, _ = select.select([listener.fileno(), 0], [], [])
            if 0 in ready:
                end()
            client, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                return fork(client)
            client.close()
            forget_the_ended()


def forget_the_ended() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def end() -> NoReturn:
    """Ends this process after its forks, whose CPU time then counts as its own."""
    signal.alarm(10)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    sys.exit()


def fork(client: socket.socket) -> dict[str, Any]:
    """Forks once more and returns in the fork; the parent sends the client its status."""
    start, streams, _, _ = socket.recv_fds(client, 8, 3)
    with client.makefile("rb") as rest:
        request: dict[str, Any] = json.loads(rest.read(int.from_bytes(start, "big")))
    if pid := os.fork():
        try:
            client.sendall(pid.to_bytes(8, "big"))
            for number in (0, 1, 2, *streams):
                os.close(number)
            _, status = os.waitpid(pid, 0)
            code = os.waitstatus_to_exitcode(status)
            client.sendall(code.to_bytes(8, "big", signed=True))
        finally:
            os._exit(0)
    if request["session"]:
        os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    client.detach()
    os.closerange(3, 1024)
    return request


def forget_the_environment() -> None:
    """Resets the values that packages read from the environment when they were imported."""
    tempfile.tempdir = None
    if plumbum := sys.modules.get("plumbum"):  # Copier runs git with it.
        plumbum.local.env.clear()
        plumbum.local.env.update(os.environ)


def run(request: dict[str, Any]) -> None:
    """Runs a module or a script like `python` does."""
    os.chdir(request["folder"])
    os.environ.clear()
    os.environ.update(request["environment"])
    sys.executable = request["python"]
    forget_the_environment()
    command = request["command"]
    if command[0] == "-m":
        sys.argv = command[1:]
        sys.path[0] = os.getcwd()
        runpy.run_module(command[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = command
        sys.path[0] = os.path.dirname(command[0])
        runpy.run_path(command[0], run_name="__main__")


if __name__ == "__main__":
    for name in sys.argv[2:]:
        importlib.import_module(name)
    assert threading.active_count() == 1, threading.enumerate()
    gc.freeze()
    run(serve(sys.argv[1]))
