"""Stops the library's plugins from running in a Worker of plain Chancy."""

from typing import Any

from chancy.plugin import Plugin

from chancy_runtime.errors import refuse_chancys_worker
from chancy_runtime.worker import Worker


class OnOurWorker(Plugin):
    """A plugin that only a Worker of this library can run.

    Chancy's own program, `chancy … worker start`, starts Chancy's Worker. That would take
    jobs without any promise of this library, and these plugins would fail in it later.
    """

    async def on_worker_started(self, *, worker: Any) -> None:
        if isinstance(worker, Worker):
            return
        refuse_chancys_worker(
            type(self).__name__, str(getattr(worker.chancy, "package", ""))
        )
