"""The commands of a service's workers, run in this process."""

import asyncio
import json
import sys
from dataclasses import dataclass
from typing import Any, Protocol

import pytest
from chancy_runtime import Cron, Leadership, Pruner, Recovery, modes
from chancy_runtime.cli import main

from harness.recorder import plain_chancy


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    output: str
    errors: str

    @property
    def json(self) -> Any:
        """The JSON that it printed."""
        return json.loads(self.output)


class Commands(Protocol):
    """Runs a command of the workers on a database, with more plugins if given."""

    def __call__(self, *arguments: str, url: str, plugins: Any = ()) -> Ended: ...


@pytest.fixture
def workers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Commands:
    """`python -m app.billing.workers`, in this process."""

    def run(*arguments: str, url: str, plugins: Any = ()) -> Ended:
        every = [Leadership(), Pruner(), Recovery(), Cron(), *plugins]
        with monkeypatch.context() as patch, pytest.raises(SystemExit) as end:
            patch.setattr(sys, "argv", ["workers", *arguments])
            # The program changes the kind of its process: here this is undone at its end.
            patch.setattr(modes, "_this", modes.this_process())
            main(lambda: plain_chancy(url, plugins=every), "app.billing.workers")
        assert isinstance(end.value.code, int)
        printed = capsys.readouterr()
        return Ended(end.value.code, printed.out, printed.err)

    return run


async def in_a_thread(workers: Commands, *arguments: str, url: str) -> Ended:
    """Runs a command beside the event loop of the test."""
    return await asyncio.to_thread(workers, *arguments, url=url)
