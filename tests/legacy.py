"""Existing backends that get workers, and helpers that show that the workers run there."""

import sys
from pathlib import Path

from .support import Service, environment, query, run, wait_for

# The beginning of each old main.py.
HEAD = """\
import logging
from contextlib import asynccontextmanager

from fastapi import FastAPI

logging.basicConfig(level=logging.INFO)
"""
LIFESPAN = (
    HEAD
    + """

@asynccontextmanager
async def lifespan(app):
    print("set up", flush=True)
    try:
        yield
    finally:
        print("tear down", flush=True)


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def root():
    return {"service": "billing"}
"""
)
PUSH = """
import asyncio, sys
from importlib import import_module

package, note = sys.argv[1:]
create_chancy = import_module(f"{package}.workers.chancy_initialization").create_chancy
job = import_module(f"{package}.workers.send_digest.worker").send_digest.job

async def push():
    async with create_chancy() as chancy:
        await chancy.push(job.with_kwargs(note=note))

asyncio.run(push())
"""


def backend_with(folder: Path, files: dict[str, str]) -> Path:
    """Writes a backend that the template did not render; `files` has texts by path."""
    for name, text in {"pyproject.toml": "", "app/__init__.py": "", **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, newline="")
    return folder


def run_a_job(folder: Path, url: str, package: str = "app.billing") -> None:
    """Pushes a job from another process; the service's workers must run it."""
    run(
        *(sys.executable, "-c", PUSH, package, "from elsewhere"),
        cwd=folder,
        env=environment(WORKERS_DATABASE_URL=url),
    )
    table = f"{package.rpartition('.')[2]}_jobs"
    wait_for(
        lambda: query(url, f"SELECT state FROM {table}") == [("succeeded",)],
        what=f"the job of {package}",
    )


def lines_with(running: Service, *texts: str) -> list[str]:
    """The texts that the service printed, in the order of its lines."""
    return [
        text for line in running.output.splitlines() for text in texts if text in line
    ]
