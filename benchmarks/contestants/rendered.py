"""The rendered workers in a process without HTTP; runs in the rendered backend's folder.

python rendered.py [FOLDER OF UVLOOP]
"""

import asyncio
import sys
from importlib import import_module

sys.path[:0] = ["", *sys.argv[1:]]
app = import_module("app.observability")
workers = import_module("app.billing.workers.chancy_initialization")


async def main() -> None:
    app.configure_logging()
    app.configure_sentry()
    async with workers.initialize_workers():
        await asyncio.Event().wait()


run = import_module("uvloop").run if sys.argv[1:] else asyncio.run
run(main())
