"""Boots apps for the tests of the wiring, each in a fork of its own.

One request a line on standard input, one answer a line on standard output, both JSON. A
request has `folder` (goes on sys.path), `module`, and `name` (`app`, `server.app`),
`factory` (a function's name) or `script` (the module itself runs uvicorn). The answer is
the list of what happened, in order: `["record", text]` for each call of the builtin
`record`, `["up", state]`, `["failed", message]`, `["raised", traceback]`.
"""

import asyncio
import builtins
import importlib
import json
import operator
import os
import runpy
import signal
import sys
import traceback
from collections.abc import Callable, MutableMapping
from typing import Any

import uvicorn

Tell = Callable[..., None]
Message = MutableMapping[str, Any]
TIMEOUT_SECONDS = 30
# What the apps import; a fork has it at once.
PRELOADED = (
    "apscheduler.schedulers.asyncio",
    "apscheduler.schedulers.background",
    "fastapi.staticfiles",
    "psycopg_pool",
    "sentry_sdk",
)


class Tapped:
    """An ASGI app that tells how its lifespan goes."""

    def __init__(self, app: Any, tell: Tell) -> None:
        self.app = app
        self.tell = tell

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        async def tapped(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                self.tell("up", scope.get("state"))
            elif message["type"].endswith(".failed"):
                self.tell("failed", message.get("message", ""))
            await send(message)

        await self.app(scope, receive, tapped)


async def drive(app: Any) -> None:
    """Plays a server's part of the lifespan protocol."""
    messages = iter(("lifespan.startup", "lifespan.shutdown"))

    async def receive() -> Message:
        return {"type": next(messages)}

    async def send(_: Message) -> None: ...

    await app(
        {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send
    )


def stop_once_up(tell: Tell) -> None:
    """Lets the real uvicorn stop when it is up, on a free port, with a tapped app."""
    load = uvicorn.Config.load

    def load_tapped(config: uvicorn.Config) -> None:
        load(config)
        config.host, config.port = "127.0.0.1", 0
        config.loaded_app = Tapped(config.loaded_app, tell)

    async def main_loop(server: uvicorn.Server) -> None: ...

    setattr(uvicorn.Config, "load", load_tapped)  # noqa: B010
    setattr(uvicorn.Server, "main_loop", main_loop)  # noqa: B010


def boot(request: dict[str, Any], tell: Tell) -> None:
    """Runs one app from its import to its end."""
    sys.path.insert(0, request["folder"])
    os.chdir(request["folder"])
    setattr(builtins, "record", lambda text: tell("record", text))  # noqa: B010
    if request.get("script"):
        stop_once_up(tell)
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
        return
    module = importlib.import_module(request["module"])
    if factory := request.get("factory"):
        app = getattr(module, factory)()
    else:
        app = operator.attrgetter(request.get("name") or "app")(module)
    asyncio.run(drive(Tapped(app, tell)))


def child(request: dict[str, Any], to_parent: int) -> None:
    """The fork's whole life; what it tells arrives even when it ends without a word."""

    def tell(kind: str, what: Any) -> None:
        line = json.dumps([kind, what], default=repr)
        os.write(to_parent, f"{line}\n".encode())

    signal.alarm(TIMEOUT_SECONDS)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    try:
        boot(request, tell)
    except SystemExit:
        pass  # how scripts end, and uvicorn after a failed start
    except BaseException:
        tell("raised", traceback.format_exc())
    finally:
        os._exit(0)


def answer(request: dict[str, Any]) -> list[Any]:
    """Forks, and returns what the fork told until its end."""
    from_child, to_parent = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(from_child)
        child(request, to_parent)
    os.close(to_parent)
    with open(from_child) as lines:
        told = [json.loads(line) for line in lines]
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        told.append(["killed", os.WTERMSIG(status)])
    return told


if __name__ == "__main__":
    for name in PRELOADED:
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
