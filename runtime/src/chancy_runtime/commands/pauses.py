"""The commands `pause` and `resume`."""

import argparse
import asyncio
import contextlib
import json
from datetime import timedelta
from typing import LiteralString

import chancy

from chancy_runtime.commands.filters import moment
from chancy_runtime.commands.program import Parsers, Program, add_command, add_json
from chancy_runtime.commands.session import in_utc, session
from chancy_runtime.postgres.operations import transaction
from chancy_runtime.queues.pausing import pause, resume

_END: LiteralString = (
    f"SELECT at, {in_utc('at')} AS text FROM (SELECT NOW() + %s::interval AS at) AS _"
)


def add_commands(parsers: Parsers) -> None:
    """Adds `pause` and `resume`."""
    for name, run, text in (
        ("pause", run_pause, "take no more jobs of a queue; those that run go on"),
        ("resume", run_resume, "take the jobs of a queue again"),
    ):
        parser = add_command(parsers, name, run, text)
        parser.add_argument(
            "queues", nargs="+", metavar="QUEUE", help="the name of a queue"
        )
        add_json(parser)
        if name == "pause":
            parser.add_argument(
                "--for",
                dest="span",
                type=_span,
                metavar="TIME",
                help="resume automatically after this time: 45m, 12h or 7d",
            )


def _span(text: str) -> timedelta:
    with contextlib.suppress(argparse.ArgumentTypeError):
        value = moment(text)
        if isinstance(value, timedelta) and value:
            return value
    raise argparse.ArgumentTypeError(
        f"{text!r} is not a time span: write 45m, 12h or 7d"
    )


def run_pause(program: Program, arguments: argparse.Namespace) -> int:
    app = program.create_chancy()
    until = asyncio.run(_pause(program, app, arguments.queues, arguments.span))
    if arguments.json:
        print(json.dumps({"paused": arguments.queues, "resume_at": until}))
    else:
        end = f" until {until}" if until else ""
        print(f"paused {', '.join(arguments.queues)}{end}; jobs that run go on")
    return 0


def run_resume(program: Program, arguments: argparse.Namespace) -> int:
    app = program.create_chancy()
    asyncio.run(_resume(program, app, arguments.queues))
    if arguments.json:
        print(json.dumps({"resumed": arguments.queues}))
    else:
        print(f"resumed {', '.join(arguments.queues)}")
    return 0


async def _pause(
    program: Program, app: chancy.Chancy, names: list[str], span: timedelta | None
) -> str | None:
    """Pauses queues; returns the end of the pause on the server's clock, if it has one."""
    async with (
        session(program, app) as connection,
        transaction(connection) as cursor,
    ):
        at, text = None, None
        if span:
            await cursor.execute(_END, [span])
            row = await cursor.fetchone()
            assert row
            at, text = row["at"], row["text"]
        await pause(app, cursor, names, until=at)
        return text


async def _resume(program: Program, app: chancy.Chancy, names: list[str]) -> None:
    async with (
        session(program, app) as connection,
        transaction(connection) as cursor,
    ):
        await resume(app, cursor, names)
