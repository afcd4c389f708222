"""Asks a forking process to start a program; harness.forking is the other side.

Only what starts fast is imported: a fork of chancy-workers runs Copier through this.
"""

import json
import os
import socket
import sys
from collections.abc import Sequence
from typing import Any, NoReturn


def ask(path: str, request: dict[str, Any], streams: Sequence[int]) -> "socket.socket":
    """Starts a program; returns the socket that receives its process id, then its status.

    Args:
        path: The socket of the process that forks.
        streams: The standard input, output and error of the program.
    """
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    data = json.dumps(request).encode()
    socket.send_fds(client, [len(data).to_bytes(8, "big")], [*streams])
    client.sendall(data)
    return client


def answer_of(client: "socket.socket") -> int:
    answer = client.recv(8)
    assert len(answer) == 8, "the process that forks is gone"
    return int.from_bytes(answer, "big", signed=True)


def run(path: str, python: str, command: Sequence[str]) -> NoReturn:
    """Runs Python with these arguments; as a fork if they run Copier."""
    if [*command[:2]] != ["-m", "copier"]:
        os.execv(python, [python, *command])
    request = {
        "command": command,
        "folder": os.getcwd(),
        "environment": dict(os.environ),
        "session": False,
        "python": python,
    }
    client = ask(path, request, (0, 1, 2))
    answer_of(client)
    status = answer_of(client)
    if status < 0:
        os.kill(os.getpid(), -status)
    sys.exit(status)
