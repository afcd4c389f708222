"""Workers in a process of their own: the command `run`, its exit status, logs and tags."""

import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.commands import run, wait_for
from harness.databases import query
from harness.probes import readiness, wait_until_ready
from harness.recorder import (
    INITIALIZATION,
    RECORDING_JOB,
    Recorder,
    make_tables,
    push,
    recorder,
    states,
    wait_until_executed,
)
from harness.sentry import sentry
from harness.servers import cluster, free_port
from harness.starts import line_of_failed_start

pytestmark = pytest.mark.xdist_group("own-process")

QUEUES = """[
    Queue("default", executor=Chancy.Executor.Async, tags={"^light$"}, eager_polling=True),
    Queue("heavy", executor=Chancy.Executor.Async, tags={"^heavy$"}, eager_polling=True),
]"""
TWO_WORKERS = """\
        async with (
            Worker(
                chancy,
                register_signal_handlers=False,
                tags={"light"},
                process="api",
            ),
            Worker(
                chancy,
                register_signal_handlers=False,
                tags={"heavy"},
                process="own",
            ),
        ):
"""
ONE_WORKER = "        async with Worker(chancy, register_signal_handlers=False):\n"
FAILING_JOB = RECORDING_JOB.replace(
    "    await asyncio.sleep(seconds)\n", '    raise RuntimeError("no digest")\n'
)
# A job that stops the Workers, which only a signal should do.
STOPPING_JOB = RECORDING_JOB.replace(
    "    await asyncio.sleep(seconds)\n",
    """    from app.billing.workers.chancy_instance import get_chancy

    for worker in list(get_chancy().workers):
        asyncio.get_running_loop().create_task(worker.stop())
""",
)


@pytest.fixture
def url(migrated_url: str) -> str:
    return migrated_url


@pytest.fixture(scope="module")
def of_both(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    """A backend that runs a light queue in the API, and a heavy queue in its own process."""
    both = recorder(tmp_path_factory.mktemp("both") / "backend", QUEUES=QUEUES)
    both.edit(INITIALIZATION, ONE_WORKER, TWO_WORKERS)
    return both


@pytest.fixture
def both(of_both: Recorder, tmp_path: Path) -> Recorder:
    return of_both.copy(tmp_path / "backend")


def workers(url: str) -> list[tuple[Any, ...]]:
    return query(url, "SELECT worker_id FROM billing_workers")


def test_jobs_of_an_api_run_in_the_process_of_the_workers(
    url: str, tmp_path: Path
) -> None:
    backend = recorder(tmp_path / "backend")
    backend.edit(
        INITIALIZATION,
        "        settings=SETTINGS,\n",
        '        settings=SETTINGS,\n        mode="push",\n',
    )

    with backend.service(url) as api:
        wait_until_ready(api)
        id = api.request("/jobs/record", "POST")["id"]
        assert (workers(url), states(url)) == ([], {"pending": 1})
        with backend.apart().service(url) as own:
            wait_until_ready(own)
            wait_for(
                lambda: api.request(f"/jobs/{id}")["state"] == "succeeded",
                what="the job",
            )
            assert own.request("/health/live") == {"status": "live"}
            own.stop()
        # The API does not depend on them.
        assert readiness(api) == (200, {"status": "ready"})
        api.stop()
    assert "Started plugin" in own.output and "Started plugin" not in api.output


def test_the_variable_decides_without_a_change_of_the_code(
    backend: Recorder, url: str, tmp_path: Path
) -> None:
    backend = backend.copy(tmp_path / "backend")
    variables = {"WORKERS_MODE": "push"}

    with (
        backend.service(url, variables=variables) as api,
        backend.apart().service(url, variables=variables) as own,
    ):
        wait_until_ready(own)
        api.run_job("record")
        assert len(workers(url)) == 1
        own.stop()
        api.stop()


@pytest.mark.parametrize("mode", ["off", "push", "nothing"])
def test_the_variable_is_for_the_api_and_not_for_the_commands(
    mode: str, backend: Recorder, url: str
) -> None:
    status = backend.command("status", url=url, WORKERS_MODE=mode)

    assert status.stdout.startswith("billing_* at ")


def test_light_jobs_run_in_the_api_and_heavy_ones_apart(
    both: Recorder, url: str
) -> None:
    with both.service(url) as api:
        wait_until_ready(api)
        push(url, "heavy", queue="heavy")
        push(url, "light")
        wait_until_executed(both, "light")
        with both.apart().service(url) as own:
            wait_until_executed(both, "heavy")
            own.stop()
        push(url, "heavy again", queue="heavy")
        # --tags selects a Worker by its tags, whichever process it is for.
        with both.apart().service(url, "--tags", "heavy,light") as own:
            wait_until_executed(both, "heavy again")
            wait_until_ready(own)
            assert len(workers(url)) == 3
            own.stop()
        api.stop()
    assert set(both.executions.values()) == {1}
    assert workers(url) == []


@pytest.mark.parametrize(
    ("tags", "line"),
    [
        (
            "heavy,other",
            "no Worker of app.billing.workers has the tag other: --tags takes heavy, light",
        ),
        (
            None,
            "every Worker of app.billing.workers is for the API: name the tags of those "
            "that run here with --tags, which takes light, or give a Worker process='own'",
        ),
    ],
)
def test_a_process_without_workers_does_not_start(
    tags: str | None, line: str, both: Recorder, url: str
) -> None:
    if tags is None:
        only_light = TWO_WORKERS[: TWO_WORKERS.index("            Worker(", 60)]
        both.edit(INITIALIZATION, TWO_WORKERS, f"{only_light}        ):\n")

    with both.apart().service(
        url, *(["--tags", tags] if tags else []), wait=False
    ) as own:
        assert own.process.wait(60) == 1
    assert f"{line}\n" in own.output and "Traceback" not in own.output
    assert workers(url) == []


def test_an_unknown_tag_also_ends_a_process_that_started_without_its_database(
    both: Recorder, url: str
) -> None:
    both.edit(
        INITIALIZATION,
        "@asynccontextmanager\nasync def initialize_workers",
        "@join_when_database_is_there\n@asynccontextmanager\nasync def initialize_workers",
    )
    both.add_import("from chancy_runtime import join_when_database_is_there")

    with both.apart().service(url, "--tags", "heavy,other", wait=False) as own:
        assert own.process.wait(60) == 1
    assert "no Worker of app.billing.workers has the tag other" in own.output
    assert "Traceback" not in own.output
    assert workers(url) == []


def test_a_start_that_cannot_succeed_has_one_line_and_the_status_1(
    backend: Recorder,
) -> None:
    url = f"postgresql://u@127.0.0.1:{free_port()}/d"

    line = line_of_failed_start(backend.apart(), url)

    assert "Connection refused" in line and "start it" in line


def test_a_port_in_use_ends_the_start(backend: Recorder, url: str) -> None:
    with backend.apart().service(url) as first:
        port = first.address.rpartition(":")[2]
        with backend.apart().service(url, "--port", port, wait=False) as second:
            assert second.process.wait(60) == 1
        first.stop()
    assert "already in use" in second.output
    assert workers(url) == []


def test_workers_that_end_by_themselves_end_the_process(
    url: str, tmp_path: Path
) -> None:
    backend = recorder(tmp_path / "backend", job=STOPPING_JOB).apart()

    with backend.service(url) as own:
        wait_until_ready(own)
        push(url, "stop")
        assert own.process.wait(60) == 1

    assert "the workers have stopped without a signal" in own.output


def test_results_that_cannot_be_saved_at_the_stop_give_the_status_1(
    tmp_path: Path,
) -> None:
    backend = recorder(tmp_path / "backend").apart()
    with cluster() as server:
        url = server.url()
        make_tables(url)
        with backend.service(url) as own:
            wait_until_ready(own)
            server.stop()
            own.process.terminate()
            assert own.process.wait(60) == 1
            server.start()
    assert "the database did not take the worker's last results" in own.output


def test_logs_and_sentry_are_set_up_as_in_the_api(url: str, tmp_path: Path) -> None:
    backend = recorder(tmp_path / "backend", job=FAILING_JOB)
    sent: list[Recorder] = []

    with sentry() as (dsn, events):
        for each in (backend, backend.apart()):
            sent.append(each)
            with each.service(url, variables={"SENTRY_DSN": dsn}) as running:
                wait_until_ready(running)
                push(url, each.process)
                wait_until_executed(backend, each.process)
                wait_for(lambda: len(events) == len(sent), what="the event")
                running.stop()
            (line,) = [x for x in running.output.splitlines() if "no digest" in x]
            assert " ERROR app.billing.workers.jobs: " in line and "\\n" in line
    of_api, of_own = events
    assert of_api["exception"]["values"][-1]["value"] == "no digest"
    assert of_own["exception"]["values"][-1]["value"] == "no digest"
    assert of_own["tags"]["service"] == of_api["tags"]["service"] == "billing"


def test_metrics_are_served_where_the_service_has_the_plugin(
    url: str, tmp_path: Path
) -> None:
    backend = recorder(tmp_path / "backend").apart()
    backend.add_plugin(
        'PrometheusPlugin(service="billing")',
        "from chancy_runtime import PrometheusPlugin",
    )

    with backend.service(url) as own:
        wait_until_ready(own)
        with urllib.request.urlopen(f"{own.address}/metrics", timeout=60) as answer:
            assert b"chancy_" in answer.read()
        own.stop()


def test_a_changed_file_starts_them_again(url: str, tmp_path: Path) -> None:
    backend = recorder(tmp_path / "backend").apart()
    worker = backend.workers / "record/worker.py"

    def pid() -> int:
        found = own.output.rpartition("Started server process [")[2].partition("]")[0]
        return int(found or 0)

    with backend.service(url, "--reload") as own:
        wait_until_ready(own)
        first = pid()
        worker.write_text(worker.read_text().replace("{note}\\n", "new {note}\\n"))
        wait_for(lambda: pid() != first, what="the second start")
        push(url, "job")
        wait_until_executed(backend, "new job")
        own.stop()
    assert workers(url) == []


def command(
    backend: Recorder, url: str, *arguments: str
) -> subprocess.CompletedProcess[str]:
    return backend.command("run", *arguments, url=url, check=False)


@pytest.mark.parametrize(
    "arguments", [("--port", "99999"), ("--port", "x"), ("--tags", "a,,b"), ("now",)]
)
def test_bad_usage_has_the_status_2(
    arguments: tuple[str, ...], backend: Recorder
) -> None:
    result = command(backend, "", *arguments)

    assert result.returncode == 2
    assert "usage: python -m app.billing.workers" in result.stderr


def without_uvicorn(backend: Recorder) -> None:
    (backend.folder / "uvicorn.py").write_text(
        "raise ImportError('not installed', name='uvicorn')\n"
    )


def as_v0_6_rendered_it(backend: Recorder) -> None:
    path = backend.workers / "__main__.py"
    head = path.read_text().partition("    main(")[0]
    path.write_text(f"{head}    main(create_chancy, __package__)\n")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (without_uvicorn, "needs uvicorn: uv add fastapi uvicorn"),
        (
            as_v0_6_rendered_it,
            "does not pass them to main(): run chancy-workers update",
        ),
    ],
)
def test_a_missing_part_is_named_in_one_line(
    change: Callable[[Recorder], None], line: str, backend: Recorder, tmp_path: Path
) -> None:
    backend = backend.copy(tmp_path / "backend")
    change(backend)

    result = command(backend, "postgresql://u@127.0.0.1:1/d")

    assert result.returncode == 1
    (message,) = result.stderr.splitlines()
    assert message.startswith("python -m app.billing.workers: run ") and line in message


PROGRAM = """
import builtins
from contextlib import asynccontextmanager

from chancy_runtime import WorkersError
from chancy_runtime.cli import main


@asynccontextmanager
async def initialize_workers():
    raise WorkersError(f"the app is {builtins.app}")
    yield


main(
    print,
    __package__,
    initialize_workers=initialize_workers,
    get_chancy=print,
    app_module="app.billing.main",
)
"""
ELSEWHERE = (
    "which is not installed, but app/billing has a module of that name. If the API is "
    "started there, with workers as the package of its workers, start the workers there "
    "too: cd app/billing && python -m workers run. Otherwise install"
)


@pytest.mark.parametrize(
    ("folder", "package", "imports", "line"),
    [
        (".", "app.billing.workers", "from . import config", "app is app.billing.main"),
        ("app", "billing.workers", "import billing.config", "app is billing.main"),
        ("app/billing", "workers", "import config, workers", "app is main"),
        (
            ".",
            "app.billing.workers",
            "import workers.jobs",
            f"app.billing.main imports workers, {ELSEWHERE} workers",
        ),
        (
            ".",
            "app.billing.workers",
            "import config",
            f"imports config, {ELSEWHERE} config",
        ),
        (
            ".",
            "app.billing.workers",
            "import billing.config",
            "there too: cd app && python -m billing.workers run",
        ),
        (
            "app/billing",
            "workers",
            "from . import config",
            "run this command in the folder that has app/, as python -m "
            "app.billing.workers run",
        ),
        (".", "app.billing.workers", "import other", "No module named 'other'"),
    ],
)
def test_the_app_is_imported_as_the_api_imports_it_or_the_right_start_is_named(
    folder: str, package: str, imports: str, line: str, tmp_path: Path
) -> None:
    for name, text in {
        "main.py": f"import builtins\nbuiltins.app = __name__\n{imports}",
        "config.py": "",
        "app.py": "",  # Has the name of the package at the top.
        "workers/__init__.py": "",
        "workers/__main__.py": PROGRAM,
    }.items():
        path = tmp_path / "app" / "billing" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    result = run(
        *(sys.executable, "-m", package, "run", "--port", "0"),
        cwd=tmp_path / folder,
        check=False,
    )

    assert result.returncode == 1 and line in result.stderr
    refused = not line.startswith(("app is ", "No module"))
    assert ("Traceback" in result.stderr) is not refused
