"""Tasks that end are reported and started again; the probes show their state."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.commands import wait_for
from harness.databases import database, query
from harness.probes import readiness, wait_until_ready
from harness.recorder import Recorder, make_tables, push, recorder
from harness.sentry import sentry
from harness.servers import Cluster, cluster, proxy

pytestmark = pytest.mark.xdist_group("health")

BROKEN = '''"""A plugin of the team."""

import os
from pathlib import Path
from typing import Any

from chancy.plugin import Plugin


class Greeter(Plugin):
    """Ends with an error as long as the file `broken` exists."""

    @staticmethod
    def get_identifier() -> str:
        return "billing.greeter"

    async def run(self, worker: Any, chancy: Any) -> None:
        while await self.sleep(1):
            if Path(os.environ["EXECUTIONS"]).with_name("broken").exists():
                raise RuntimeError("no greeting for hunter2")
'''
OWN_MAIN = """from contextlib import asynccontextmanager

from chancy_runtime.web import health_router
from fastapi import FastAPI

from .workers.chancy_initialization import initialize_workers
from .workers.chancy_instance import get_chancy


@asynccontextmanager
async def lifespan(app):
    async with initialize_workers():
        yield


app = FastAPI(lifespan=lifespan)
app.include_router(health_router(get_chancy))
"""
TABLES = ("cron", "jobs", "leader", "queues", "workers")


@pytest.fixture(scope="module")
def billing(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    """A service with a plugin of the team."""
    backend = recorder(tmp_path_factory.mktemp("health") / "backend")
    (backend.workers / "greeter.py").write_text(BROKEN)
    backend.add_plugin("Greeter()", "from .greeter import Greeter")
    return backend


@pytest.fixture
def url(server: Cluster) -> Iterator[str]:
    """The tables of the service, and a URL with a password in it."""
    with database(server.url()) as url:
        yield url.replace("postgres@", "postgres:hunter2@")


def reveals_nothing(answer: dict[str, Any], url: str) -> None:
    """An outsider learns which parts fail, but no addresses and no error messages."""
    text = json.dumps(answer)
    for secret in re.split("[/:@]+", url)[1:]:
        assert secret not in text, text
    assert not re.search("[Ee]rror|Traceback|relation|127|psycopg|greeting", text), text


def test_a_plugin_that_raises_is_reported_and_started_again_until_it_works(
    billing: Recorder, url: str
) -> None:
    switch = billing.folder / "broken"
    with (
        sentry() as (dsn, events),
        billing.service(url, variables={"SENTRY_DSN": dsn}) as running,
    ):
        wait_until_ready(running)
        switch.touch()
        wait_for(lambda: readiness(running)[0] == 503, what="the unreadiness")
        status, answer = readiness(running)
        assert answer == {"status": "not ready", "problems": ["Greeter is down"]}
        reveals_nothing(answer, url)
        wait_for(
            lambda: running.output.count("Greeter still fails") >= 2,
            what="two attempts",
        )
        assert readiness(running)[0] == 503
        assert running.request("/health/live") == {"status": "live"}
        id = push(url, "meanwhile")
        wait_for(lambda: billing.executions["meanwhile"], what=f"job {id}")

        switch.unlink()
        wait_until_ready(running)
        assert "Greeter works again" in running.output
        running.stop()

    (line,) = [line for line in running.output.splitlines() if "ERROR" in line]
    assert "Greeter failed and will be retried: RuntimeError: no greeting" in line
    (event,) = events
    assert event["level"] == "error"
    assert event["tags"]["chancy.task"] == "Greeter"
    assert event["tags"]["service"] == "billing"
    assert event["exception"]["values"][-1]["value"] == "no greeting for hunter2"


def test_every_task_of_a_worker_that_ends_is_reported_and_started_again(
    billing: Recorder, url: str
) -> None:
    tasks = {
        *("Cron", "Leadership", "Pruner", "Recovery"),
        *("queues", "queue_default", "updates", "heartbeat", "notifications"),
    }
    with (
        sentry() as (dsn, events),
        billing.service(url, variables={"SENTRY_DSN": dsn}) as running,
    ):
        wait_until_ready(running)
        push(url, "unsaved", seconds=3)
        wait_for(lambda: billing.executions["unsaved"], what="the start")
        # These are not errors of the connection.
        query(url, "NOTIFY billing_events, 'no JSON'")
        wait_for(
            lambda: "notifications failed" in running.output,
            what="the end of the notifications",
        )
        for table in TABLES:
            query(url, f"ALTER TABLE billing_{table} RENAME TO away_{table}")

        def failed() -> set[str]:
            return set(re.findall(r"(\w+) failed and will be retried", running.output))

        wait_for(lambda: failed() >= tasks, what=f"{tasks - failed()}")
        status, answer = readiness(running)
        assert status == 503
        reveals_nothing(answer, url)
        assert {f"{task} is down" for task in tasks - {"notifications"}} <= set(
            answer["problems"]
        )

        for table in TABLES:
            query(url, f"ALTER TABLE away_{table} RENAME TO billing_{table}")
        wait_until_ready(running)
        wait_for(
            lambda: query(url, "SELECT state FROM billing_jobs") == [("succeeded",)],
            what="the result of the job",
        )
        push(url, "after")
        wait_for(lambda: billing.executions["after"], what="a job")
        running.stop()

    assert billing.executions["unsaved"] == 1
    tagged = [event["tags"].get("chancy.task") for event in events]
    assert sorted(tagged) == sorted(tasks), tagged
    assert {event["tags"]["service"] for event in events} == {"billing"}


def test_a_service_that_starts_without_its_database_becomes_ready_with_it(
    tmp_path: Path,
) -> None:
    backend = recorder(tmp_path / "backend", without_database=True)
    with cluster() as server:
        url = server.url().replace("postgres@", "postgres:hunter2@")
        make_tables(url)
        server.stop()
        with backend.service(url) as running:
            status, answer = readiness(running)
            assert status == 503
            assert answer["problems"] == ["the workers have not started"]
            reveals_nothing(answer, url)
            assert running.request("/health/live") == {"status": "live"}
            server.start()
            wait_until_ready(running)
            running.stop()


def test_a_service_with_its_own_main_has_the_probes_by_one_line(
    tmp_path: Path, url: str
) -> None:
    backend = recorder(tmp_path / "backend")
    (backend.folder / "app/billing/main.py").write_text(OWN_MAIN)
    with backend.service(url) as running:
        wait_until_ready(running)
        assert running.request("/health/live") == {"status": "live"}
        running.stop()


def test_the_probes_stay_quick_when_the_database_is_silent(
    billing: Recorder, url: str, server: Cluster
) -> None:
    with proxy(server.port) as between:
        silent = url.replace(f":{server.port}/", f":{between.port}/")
        with billing.service(silent) as running:
            wait_until_ready(running)
            between.stall()
            wait_for(lambda: readiness(running)[0] == 503, what="the unreadiness")
            reveals_nothing(readiness(running)[1], silent)
            between.resume_new()
            wait_until_ready(running)
            running.stop()
