"""What `deploy` renders fits into the pooler's connections, also while a release is deployed."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.databases import connections_to
from harness.probes import wait_until_ready
from harness.servers import Cluster, cluster, pgbouncer

from .support import Service, alarms, database, migrate, query, service, wait_for

DEPLOYED: dict[str, object] = {"scope": "backend", "deploy": "azure-container-apps"}
LIMIT = 15
RUN = ("-m", "app.billing.workers", "run", "--port", "0")
REQUESTS = 40


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    with cluster() as server:
        yield server


def use(*apis: Service) -> None:
    """Requests to every API at once, each of which takes a connection or pushes a job."""
    requests = [("/", "GET"), ("/jobs/send_digest", "POST")] * REQUESTS
    with ThreadPoolExecutor(16) as threads:
        for api in apis:
            list(threads.map(lambda request, api=api: api.request(*request), requests))


@pytest.mark.parametrize("run_workers", ["in_api", "own_process", "both"])
def test_two_releases_at_once_fit_into_the_pooler(
    run_workers: str,
    rendered: Callable[[str, dict[str, object]], Path],
    server: Cluster,
) -> None:
    """PgBouncer refuses the first client too many at once, and its log has it."""
    answers = {**DEPLOYED, "run_workers": run_workers}
    folder = rendered(f"deployed-{run_workers}", answers)
    limits: dict[str, object] = {"default_pool_size": LIMIT, "max_client_conn": LIMIT}
    with (
        database(server.url()) as direct,
        pgbouncer(server, pool_mode="session", **limits) as pooler,
        ExitStack() as running,
    ):
        url = pooler.url(direct.rpartition("/")[2])
        variables = {"WORKERS_DATABASE_URL": url}

        def deploy() -> list[Service]:
            migrate(folder, "app.billing", url)
            release = [service(folder, "app.billing.main:app", variables)]
            if run_workers != "in_api":
                release.append(service(folder, "", variables, run=RUN))
            started = [running.enter_context(each) for each in release]
            for each in started:
                wait_until_ready(each)
            return started

        old = deploy()
        use(old[0])
        new = deploy()
        use(old[0], new[0])
        for each in old:
            each.stop()
        use(new[0])
        wait_for(
            lambda: jobs_in(direct) == {"succeeded": 4 * REQUESTS},
            timeout=60,
            what="the jobs",
        )
        for each in new:
            each.stop()
        log = (pooler.folder / "pgbouncer.log").read_text()
        print("PEAK", connections_to(direct))

    assert "no more connections allowed" not in log
    assert [line for each in [*old, *new] for line in alarms(each)] == []


def jobs_in(url: str) -> dict[str, int]:
    return dict(query(url, "SELECT state, count(*) FROM billing_jobs GROUP BY state"))
