"""Boots apps for the tests of the wiring, each in its own fork.

Each line on standard input is a request and each line on standard output an answer, both as
JSON. A request has `folder` (added to sys.path), `module`, and `name` (`app`, `server.app`),
`factory` (a function's name) or `script` (the module itself runs uvicorn). The answer is the
list of events in order: `["record", text]` for each call of the builtin `record`,
`["up", state]`, `["failed", message]`, `["raised", traceback]`.
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
# Packages that the apps import; importing them before the fork saves time.
PRELOADED = (
    "apscheduler.schedulers.asyncio",
    "apscheduler.schedulers.background",
    "fastapi.staticfiles",
    "psycopg_pool",
    "sentry_sdk",
)


class Tapped:
    """An ASGI app that reports the events of its lifespan."""

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
    """Makes the real uvicorn use a tapped app and a free port, and stop once it is up."""
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
    """Runs in the fork; events written before a crash still arrive."""

    def tell(kind: str, value: Any) -> None:
        line = json.dumps([kind, value], default=repr)
        os.write(to_parent, f"{line}\n".encode())

    signal.alarm(TIMEOUT_SECONDS)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    try:
        boot(request, tell)
    except SystemExit:
        pass  # Scripts end this way, and uvicorn after a failed start.
    except BaseException:
        tell("raised", traceback.format_exc())
    finally:
        os._exit(0)


def answer(request: dict[str, Any]) -> list[Any]:
    """Forks, and returns the fork's events."""
    from_child, to_parent = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(from_child)
        child(request, to_parent)
    os.close(to_parent)
    with open(from_child) as lines:
        events = [json.loads(line) for line in lines]
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        events.append(["killed", os.WTERMSIG(status)])
    return events


if __name__ == "__main__":
    for name in PRELOADED:
        importlib.import_module(name)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)
