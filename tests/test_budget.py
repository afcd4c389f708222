"""Rendered deployments fit the pooler's connections, and `check` adds up a team's own files."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from chancy_workers.answers import Project, read
from chancy_workers.checks import Subject, needs_too_many_connections
from chancy_workers.connections import sum_of

from harness.databases import connections_to
from harness.probes import wait_until_ready
from harness.servers import Cluster, cluster, pgbouncer

from .support import (
    PROGRAM,
    Service,
    alarms,
    commit,
    database,
    migrate,
    query,
    run,
    service,
    wait_for,
)

DEPLOYED: dict[str, object] = {"scope": "backend", "deploy": "azure-container-apps"}
LIMIT = 15
RUN = ("-m", "app.billing.workers", "run", "--port", "0")
REQUESTS = 20
WORKERS = "app/billing/workers"


@pytest.fixture(scope="module")
def server() -> Iterator[Cluster]:
    with cluster() as server:
        yield server


def use(*apis: Service) -> None:
    """Sends parallel requests to each API; each takes a connection or pushes a job."""
    requests = [("/", "GET"), ("/jobs/send_digest", "POST")] * REQUESTS
    with ThreadPoolExecutor(8) as threads:
        for api in apis:
            list(threads.map(lambda request, api=api: api.request(*request), requests))


@pytest.mark.parametrize("run_workers", ["in_api", "own_process", "both"])
def test_two_releases_at_once_fit_into_the_pooler(
    run_workers: str,
    rendered: Callable[[str, dict[str, object]], Path],
    server: Cluster,
) -> None:
    """PgBouncer refuses the first client above the limit and logs that."""
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
            what="the jobs",
        )
        for each in new:
            each.stop()
        log = (pooler.folder / "pgbouncer.log").read_text()
        # PgBouncer keeps connections open, so this is the maximum.
        most = connections_to(direct)

    project = read(folder / ".copier-answers.yml")
    assert project is not None
    assert most <= sum_of(project).size() <= LIMIT
    assert "no more connections allowed" not in log
    assert [line for each in [*old, *new] for line in alarms(each)] == []


def jobs_in(url: str) -> dict[str, int]:
    return dict(query(url, "SELECT state, count(*) FROM billing_jobs GROUP BY state"))


# --- the sizes that are rendered ------------------------------------------------------------


@pytest.fixture
def budget(macros_of: Callable[[str], Any]) -> Any:
    return macros_of("budget")


WORKER_SETS: dict[str, list[list[dict[str, object]]]] = {
    "in_api": [[{}], [{}] * 3],
    "own_process": [[{}], [{"tags": ["a"]}, {}]],
    "both": [[{}], [{"process": "api"}, {"process": "own"}, {}, {"process": "own"}]],
}


@pytest.mark.parametrize("run_workers", WORKER_SETS)
def test_the_sizes_fit_every_pooler_that_is_not_refused(
    run_workers: str, budget: Any
) -> None:
    for workers, limit in product(WORKER_SETS[run_workers], range(5, 300)):
        kinds = [each.get("process") for each in workers]
        if limit < int(budget.fewest(run_workers, workers)):
            continue
        sizes = json.loads(budget.budget_of(limit, run_workers, workers))
        pool, api = sizes["worker_pool_max"], sizes["api_pool_max"]
        if run_workers != "own_process":
            api += pool + len(workers) - kinds.count("own")
        else:
            api += min(pool, 4)  # The maximum of a process that only pushes.
        own = pool + len(workers) - kinds.count("api")
        replicas = sizes["api_max_replicas"], sizes["worker_max_replicas"]
        scaler = sizes["scaler"]
        total = 2 * (replicas[0] * api + replicas[1] * own + scaler) + 1

        assert total <= limit
        assert total + 2 * api > limit or replicas[0] == 10
        assert sizes["worker_pool_min"] <= pool
        assert replicas[0] >= 1
        assert (replicas[1] > 0) is (run_workers != "in_api")
        # The rule takes a connection in each release, and is useless with one replica.
        assert bool(sizes["scaler"]) is (replicas[1] > 1)


def test_without_deploy_the_sizes_are_the_same_as_in_older_releases(
    backend: Path,
) -> None:
    choices = (backend / WORKERS / "chancy_initialization.py").read_text()
    assert "CHANCY_MIN_POOL_SIZE = 5\nCHANCY_MAX_POOL_SIZE = 10\n" in choices
    assert "max_size=3," in (backend / MAIN).read_text()


# --- the sum of check -----------------------------------------------------------------------


INITIALIZATION = """\
from chancy_runtime import Chancy, Settings, Worker

CHANCY_MAX_POOL_SIZE = 4
SETTINGS = Settings(replicas=1, pooler_connections=15)


def create_chancy():
    return Chancy("", max_connection_pool_size=CHANCY_MAX_POOL_SIZE, settings=SETTINGS)


async def initialize_workers():
    async with Worker(create_chancy()):
        yield
"""
BICEP = """\
param apis int = 2
resource api 'Microsoft.App/containerApps@2025-01-01' = {
  properties: { template: { scale: {
    // maxReplicas: 9
    maxReplicas: apis
  } } }
}
resource worker 'Microsoft.App/containerApps@2025-01-01' = {
  properties: { template: { scale: {
    maxReplicas: 3
    rules: [ { custom: { type: 'postgresql' } } ]
  } } }
}
"""
# The platform starts up to 10 replicas of an app without maxReplicas.
TWO_MORE = """\
resource heavyWorker 'Microsoft.App/containerApps@2025-01-01' = {
  properties: { template: { scale: { minReplicas: 1 } } }
}
resource mailWorker 'Microsoft.App/containerApps@2025-01-01' = {
  properties: { template: { scale: { maxReplicas: 1 } } }
}
resource other 'Microsoft.App/containerApps@2025-01-01' existing = {
  name: 'other'
}
resource migrate 'Microsoft.App/jobs@2025-01-01' = {
}
"""
ENGINE = "from sqlalchemy.ext.asyncio import create_async_engine\n"
POOL = "from psycopg_pool import AsyncConnectionPool\n"
MAIN = "app/billing/main.py"


def service_with(root: Path, files: dict[str, str], **answers: object) -> Project:
    """A service with these files; its app imports the modules among them."""
    every = {
        f"{WORKERS}/chancy_initialization.py": INITIALIZATION,
        MAIN: "from ..database import engine\n",
        "app/orders/main.py": f"{POOL}AsyncConnectionPool('', max_size=99)\n",
        **files,
    }
    default = {
        **{
            "scope": "service",
            "service": "billing",
            "jobs": [],
            "run_workers": "in_api",
        },
        **{"database_secret": "DATABASE-URL", "deploy": "azure-container-apps"},
    }
    every["app/billing/.copier-answers.yml"] = yaml.safe_dump({**default, **answers})
    for name, text in every.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    project = read(root / "app/billing/.copier-answers.yml")
    assert project is not None
    return project


@pytest.mark.parametrize(
    ("files", "answers", "words"),
    [
        ({}, {}, "11 of the pooler's 15 … 2 × (1 API × (4 pool + 1 LISTEN)) + 1 migrate"),
        (
            {},
            {"run_workers": "own_process"},
            "19 of … (1 API × (4 pool) + 1 worker × (4 pool + 1 LISTEN))",
        ),
        (
            {"app/billing/deploy/main.bicep": BICEP},
            {"run_workers": "both"},
            "53 of … (2 API × (4 pool + 1 LISTEN) + 3 worker × (…) + 1 scale rule) + 1",
        ),
        (
            {
                "app/billing/deploy/main.bicep": BICEP,
                "app/billing/deploy/production.bicepparam": "param apis = 5\n",
            },
            {"run_workers": "both"},
            "(5 API × ",
        ),
        (
            {"app/billing/deploy/main.bicep": f"{BICEP}{TWO_MORE}"},
            {"run_workers": "both"},
            "(2 API × (4 pool + 1 LISTEN) + 14 worker × (…)",
        ),
        (
            {"app/database.py": f"{ENGINE}engine = create_async_engine(URL)\n"},
            {},
            "41 of … + 15 app/database.py:2))",
        ),
        (
            {
                "app/database.py": f"{ENGINE}engine = create_async_engine(\n"
                "    URL, pool_size=3, max_overflow=0\n)\n"
            },
            {"run_workers": "own_process"},
            "25 of … (1 API × (4 pool + 3 app/database.py:2) + 1 worker × (4 pool + 1",
        ),
        (
            {
                "app/database.py": f"{ENGINE}engine = create_async_engine(U, pool_size=3)\n",
                f"{WORKERS}/send_digest/worker.py": "from app.database import engine\n",
            },
            {"run_workers": "own_process"},
            "1 worker × (4 pool + 1 LISTEN + 13 app/database.py:2)",
        ),
        (
            {MAIN: f"{POOL}SIZE = 6\nasync def lifespan(app):\n"
             "    pool = AsyncConnectionPool(url, max_size=SIZE)\n"},
            {},
            "23 of … + 6 app/billing/main.py:4))",
        ),
        (
            {MAIN: f"import os\n{POOL}AsyncConnectionPool(url, max_size=int(os.environ['N']))\n"},
            {},
            "11 of … + ? app/billing/main.py:3))",
        ),
        (
            {MAIN: f"{POOL}AsyncConnectionPool(reports, max_size=9)  # other database\n"},
            {},
            "11 of … (4 pool + 1 LISTEN))",
        ),
        (
            {MAIN: "async def f():\n    import asyncpg\n    await asyncpg.create_pool(URL)\n"},
            {},
            "31 of … + 10 app/billing/main.py:3))",
        ),
        (
            {f"{WORKERS}/crunch/worker.py": "def crunch():\n    get_chancy().sync_push(job)\n"},
            {},
            "19 of … (4 pool + 1 LISTEN + 4 sync_push))",
        ),
        *(
            ({f"app/billing/deploy/{name}": text}, {}, "21 of … (1 API × 2 processes × (")
            for name, text in (
                ("Dockerfile", 'CMD ["uvicorn", "app.billing.main:app", "--workers", "2"]\n'),
                ("Dockerfile", "# --workers 9\nCMD exec gunicorn --workers=2 app:app\n"),
                ("Dockerfile", "ENV WEB_CONCURRENCY=2\n"),
                ("main.bicep", "  args: [\n    '--workers'\n    '2'\n  ]\n"),
                ("main.bicep", "  name: 'WEB_CONCURRENCY'\n  value: '2'\n"),
            )
        ),
    ],
    ids=[
        *("plain", "an API that only pushes", "replicas", "a parameter", "several apps", "no size"),
        *("of the app", "of a job", "a constant", "unknown", "elsewhere", "in a function"),
        *("without asyncio", "a list", "a command", "a variable", "arguments", "a value"),
    ],
)  # fmt: skip
def test_check_adds_up_the_connections_of_the_files(
    files: dict[str, str], answers: dict[str, object], words: str, tmp_path: Path
) -> None:
    rest = str(sum_of(service_with(tmp_path, files, **answers)))

    for part in words.split(" … "):
        before, found, rest = rest.partition(part.replace("(…)", "(4 pool + 1 LISTEN)"))
        assert found, before


@pytest.mark.parametrize(
    ("main", "deploy", "levels"),
    [
        (f"{POOL}AsyncConnectionPool(url, max_size=2)\n", "azure-container-apps", []),
        (f"{POOL}AsyncConnectionPool(url, max_size=3)\n", "azure-container-apps", ["error"]),
        (f"{POOL}AsyncConnectionPool(url)\n", "azure-container-apps", ["notice"]),
        (f"{POOL}AsyncConnectionPool(url, max_size=3)\n", "none", []),
    ],
    ids=["fits", "stated", "not stated", "without deploy"],
)  # fmt: skip
def test_too_many_connections_are_an_error_only_with_deploy_and_stated_sizes(
    main: str, deploy: str, levels: list[str], tmp_path: Path
) -> None:
    project = service_with(tmp_path, {MAIN: main}, deploy=deploy)
    commit(tmp_path)

    found = [*needs_too_many_connections(Subject(project, {}, None, None))]

    assert [each.level for each in found] == levels
    for each in found:
        assert (each.file, each.line) == (f"{WORKERS}/chancy_initialization.py", 3)
        assert "of the pooler's 15 connections" in each.problem
        assert "pooler_connections in app/billing/.copier-answers.yml" in each.mend


def test_check_also_prints_the_sum_if_it_is_not_an_error(tmp_path: Path) -> None:
    """Without `deploy`, the number of replicas and the pooler's size are unknown."""
    service_with(tmp_path, {}, deploy="none")
    commit(tmp_path)

    result = run(PROGRAM, "check", cwd=tmp_path, check=False)

    assert "chancy-workers check: app/billing needs up to 11 of the" in result.stderr
    assert "of the pooler" not in result.stdout
