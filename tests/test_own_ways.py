"""A service keeps its own scheduler, log and secrets beside the workers."""

import json
import sys
from pathlib import Path

import pytest

from .legacy import HEAD, backend_with, run_a_job
from .support import TEMPLATE, copy, migrate, run, service, wait_for

MAIN = "app/billing/main.py"
SECRETS = '''\
"""Secrets as this team keeps them."""

import json
from functools import cache
from pathlib import Path


@cache
def read_secret(name: str) -> str:
    return json.loads(Path("secrets.json").read_text())[name]


async def fetch_secret(name: str) -> str:
    return read_secret(name)
'''
STRUCTLOG = """\
import logging
import sys

import structlog
from fastapi import FastAPI

shared = [
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso"),
]
structlog.configure(
    processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
)
handler = logging.StreamHandler(sys.stdout)
handler.setFormatter(
    structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared, processor=structlog.processors.JSONRenderer()
    )
)
logging.basicConfig(handlers=[handler], level=logging.INFO)

app = FastAPI()
"""
LOGURU = """\
import logging
import sys

from fastapi import FastAPI
from loguru import logger


class Intercepted(logging.Handler):
    def emit(self, record):
        logger.opt(exception=record.exc_info).log(record.levelname, record.getMessage())


logger.remove()
logger.add(sys.stdout, serialize=True)
logging.basicConfig(handlers=[Intercepted()], level=logging.INFO, force=True)

app = FastAPI()
"""
IN_A_LIFESPAN = (
    HEAD
    + """
from apscheduler.schedulers.asyncio import AsyncIOScheduler

scheduler = AsyncIOScheduler()


@scheduler.scheduled_job("interval", seconds=0.2)
async def legacy():
    print("legacy job", flush=True)


@asynccontextmanager
async def lifespan(app):
    scheduler.start()
    yield
    scheduler.shutdown()
    print("scheduler is down", flush=True)


app = FastAPI(lifespan=lifespan)
"""
)
ON_EVENTS = (
    HEAD
    + """
from apscheduler.schedulers.background import BackgroundScheduler

app = FastAPI()
scheduler = BackgroundScheduler()


@scheduler.scheduled_job("interval", seconds=0.2)
def legacy():
    print("legacy job", flush=True)


app.on_event("startup")(scheduler.start)


@app.on_event("shutdown")
def stop():
    scheduler.shutdown()
    print("scheduler is down", flush=True)
"""
)


@pytest.mark.parametrize("text", [IN_A_LIFESPAN, ON_EVENTS], ids=["lifespan", "events"])
def test_apscheduler_runs_its_jobs_beside_the_workers(
    text: str, tmp_path: Path, database_url: str
) -> None:
    root = backend_with(tmp_path / "backend", {MAIN: text})
    copy("app/billing", cwd=root)
    migrate(root, "app.billing", database_url)

    with service(
        root, "app.billing.main:app", {"WORKERS_DATABASE_URL": database_url}
    ) as running:
        run_a_job(root, database_url)
        jobs = running.output.count("legacy job")
        wait_for(
            lambda: running.output.count("legacy job") > jobs,
            what="a legacy job after the workers' job",
        )
        running.stop()

    assert "scheduler is down" in running.output
    assert "Started plugin 'Cron'" in running.output
    program = TEMPLATE / "tasks" / "wire_lifespan"
    run(sys.executable, program, "--service=billing", "--remove", MAIN, cwd=root)
    assert (root / MAIN).read_text() == text


@pytest.mark.parametrize("text", [STRUCTLOG, LOGURU], ids=["structlog", "loguru"])
def test_the_workers_log_lines_are_in_the_service_s_own_stream_and_format(
    text: str, tmp_path: Path, database_url: str
) -> None:
    """The URL comes from the team's function, under the secret's own name."""
    root = backend_with(
        tmp_path / "backend",
        {
            MAIN: text,
            "app/vault.py": SECRETS,
            "secrets.json": json.dumps({"BILLING_DB": database_url}),
        },
    )
    copy(
        "app/billing",
        *("-d", "get_secret_value=app.vault.read_secret"),
        *("-d", "database_secret=BILLING_DB"),
        cwd=root,
    )
    migrate(root, "app.billing", database_url)

    with service(root, "app.billing.main:app", {}) as running:
        run_a_job(root, database_url)
        running.stop()

    lines = running.output.splitlines()
    for message in ("Started plugin 'Cron'", "send_digest ran: from elsewhere"):
        (line,) = (line for line in lines if message in line)
        record = json.loads(line)
        assert message in (record.get("event") or record["record"]["message"])


def test_an_async_function_for_secrets_is_refused_in_one_line(
    tmp_path: Path,
) -> None:
    root = backend_with(tmp_path / "backend", {"app/vault.py": SECRETS})
    copy(
        "app/billing",
        *("-d", "get_secret_value=app.vault.fetch_secret"),
        *("-d", "database_secret=BILLING_DB"),
        cwd=root,
    )

    with service(root, "app.billing.main:app", {}, wait=False) as running:
        assert running.process.wait(60) == 3, running.output

    assert "the secret BILLING_DB is a coroutine, not text" in running.output
