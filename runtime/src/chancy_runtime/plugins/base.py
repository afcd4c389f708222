"""Stops the library's plugins from running in a Worker of plain Chancy."""

import sys
from typing import Any

from chancy.plugin import Plugin

from chancy_runtime.errors import WorkersError
from chancy_runtime.worker import Worker


class OnOurWorker(Plugin):
    """A plugin that only a Worker of this library can run.

    Chancy's own program, `chancy … worker start`, starts Chancy's Worker. That would take
    jobs without any promise of this library, and these plugins would fail in it later.
    """

    async def on_worker_started(self, *, worker: Any) -> None:
        if isinstance(worker, Worker):
            return
        message = (
            f"{type(self).__name__} of chancy_runtime does not run in Chancy's own Worker: "
            f"start the service, which starts its workers ({_command(worker.chancy)}), or "
            "use chancy_runtime.Worker with chancy_runtime.Chancy in your own program"
        )
        if "chancy.cli.worker" not in sys.modules:
            raise WorkersError(message)
        from click import (
            ClickException,  # Chancy's program prints it without a traceback.
        )

        raise ClickException(message)


def _command(app: Any) -> str:
    package = str(getattr(app, "package", ""))
    service = package.removesuffix(".workers")
    module = f"{service}.main" if service != package else "your.module"
    return f"for example uvicorn {module}:app"
