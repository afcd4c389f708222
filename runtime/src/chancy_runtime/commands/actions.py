"""The commands `retry`, `cancel` and `purge`, which change jobs."""

import argparse
import asyncio
import json
import sys
from collections import Counter

import chancy
from psycopg.rows import DictRow

from chancy_runtime.commands.filters import add_filters, check_filters, select
from chancy_runtime.commands.output import counted, printable
from chancy_runtime.commands.program import Parsers, Program, add_command, add_json
from chancy_runtime.commands.session import session
from chancy_runtime.errors import WorkersError
from chancy_runtime.jobs.changes import (
    CANCEL,
    COLUMNS,
    PURGE,
    RETRY,
    Action,
    Outcome,
    act,
    find_changeable,
)
from chancy_runtime.postgres.target import target_of

_LIMIT = 1000


def add_commands(parsers: Parsers) -> None:
    """Adds `retry`, `cancel` and `purge`."""
    for name, run, action, text in (
        ("retry", run_retry, RETRY, "run failed jobs again, from their first attempt"),
        ("cancel", run_cancel, CANCEL, "fail jobs that wait or run"),
        ("purge", run_purge, PURGE, "delete jobs that are done; asks first"),
    ):
        parser = add_command(parsers, name, run, text)
        usual = " or ".join(action.usual)
        add_filters(parser, states=action.states, usual=usual, limit=_LIMIT)
        add_json(parser)
        if action is PURGE:
            parser.add_argument("--yes", action="store_true", help="do not ask")


def run_retry(program: Program, arguments: argparse.Namespace) -> int:
    return _run(program, arguments, RETRY)


def run_cancel(program: Program, arguments: argparse.Namespace) -> int:
    return _run(program, arguments, CANCEL)


def run_purge(program: Program, arguments: argparse.Namespace) -> int:
    return _run(program, arguments, PURGE)


def _run(program: Program, arguments: argparse.Namespace, action: Action) -> int:
    check_filters(arguments, needed=True)
    if action is PURGE and not arguments.yes and not sys.stdin.isatty():
        raise WorkersError(
            "purge asks before it deletes, and there is no terminal to answer on: add --yes"
        )
    app = program.create_chancy()
    outcome = Outcome(by=f"the command {arguments.command}")
    jobs, has_more = asyncio.run(_find(program, app, arguments, action, outcome))
    if action is PURGE and jobs and not arguments.yes:
        _ask(app, jobs)
    is_done = False
    try:
        asyncio.run(_change(program, app, action, jobs, outcome))
        is_done = True
    finally:
        if is_done or outcome.done:
            _show(program, arguments, action, outcome, has_more)
    return 1 if arguments.ids and outcome.left else 0


async def _find(
    program: Program,
    app: chancy.Chancy,
    arguments: argparse.Namespace,
    action: Action,
    outcome: Outcome,
) -> tuple[list[DictRow], bool]:
    """Returns the jobs to change, and whether there are more."""
    async with session(program, app) as connection:
        found, has_more = await select(
            connection, app, arguments, COLUMNS, states=action.usual
        )
    return find_changeable(action, arguments.ids, found, outcome), has_more


def _ask(app: chancy.Chancy, jobs: list[DictRow]) -> None:
    """Asks whether the jobs may be deleted; no connection is open while it waits.

    Raises:
        WorkersError: The answer is not yes.
    """
    states = Counter(str(job["state"]) for job in jobs)
    parts = ", ".join(f"{number:,} {state}" for state, number in sorted(states.items()))
    print(
        f"Delete {counted(len(jobs), 'job')} ({parts}) of {app.prefix}* at "
        f"{target_of(app.dsn)}? Type yes: ",
        end="",
        file=sys.stderr,
        flush=True,
    )
    if sys.stdin.readline().strip().lower() != "yes":
        raise WorkersError("nothing was deleted, because the answer was not yes")


async def _change(
    program: Program,
    app: chancy.Chancy,
    action: Action,
    jobs: list[DictRow],
    outcome: Outcome,
) -> None:
    async with session(program, app) as connection:
        await act(app, connection, action, jobs, outcome)


def _show(
    program: Program,
    arguments: argparse.Namespace,
    action: Action,
    outcome: Outcome,
    has_more: bool,
) -> None:
    if arguments.json:
        left = [{"id": id, "reason": reason} for id, reason in outcome.left.items()]
        print(
            json.dumps(
                {action.participle: outcome.done, "left": left, "more": has_more}
            )
        )
        return
    print(f"{action.participle} {counted(len(outcome.done), 'job')}")
    for end, number in outcome.ran.items():
        were = "was running, and" if number == 1 else "were running: each"
        print(f"{number:,} of them {were} {end}")
    for id, reason in outcome.left.items():
        print(f"left {id} alone: {printable(reason)}", file=sys.stderr)
    if has_more:
        print(
            f"there are more than {counted(arguments.limit, 'job')}: run the command "
            "again, or raise --limit"
        )
