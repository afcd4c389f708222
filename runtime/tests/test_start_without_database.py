"""A service that may start without its database starts at once; its workers join later."""

import socket
import time
import urllib.error
from collections.abc import Iterator

import pytest

from harness.commands import wait_for
from harness.databases import database
from harness.recorder import Recorder, make_tables, recorder
from harness.servers import Cluster, cluster, free_port, proxy
from harness.services import Service
from harness.starts import PASSWORD, lock, wait_for_lock

pytestmark = pytest.mark.xdist_group("start-without-database")

NOT_STARTED = {"status": "not ready", "problems": ["the workers have not started"]}


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    """A backend whose service starts without its database."""
    folder = tmp_path_factory.mktemp("patient") / "backend"
    return recorder(folder, without_database=True)


@pytest.fixture
def stopped() -> Iterator[Cluster]:
    """A PostgreSQL that does not run yet."""
    with cluster() as server:
        server.stop("fast")
        yield server


def status(running: Service, path: str, method: str = "GET") -> int:
    try:
        running.request(path, method)
    except urllib.error.HTTPError as error:
        return error.code
    return 200


def reasons(running: Service) -> list[str]:
    return [line for line in running.output.splitlines() if "have not started" in line]


def test_the_workers_join_when_the_database_is_there_and_has_the_tables(
    patient: Recorder, stopped: Cluster
) -> None:
    url = stopped.url()
    with patient.service(url) as running:
        assert status(running, "/health/live") == 200
        assert status(running, "/health/ready") == 503
        assert status(running, "/jobs/record", "POST") == 500
        wait_for(
            lambda: "Chancy is not running in this process: enter" in running.output,
            what="the error of the push",
        )
        assert status(running, "/health/live") == 200
        # After two more attempts the same reason is not logged again.
        time.sleep(11)
        (down,) = reasons(running)
        assert "Connection refused" in down and "start it" in down

        stopped.start()
        wait_for(lambda: len(reasons(running)) > 1, what="the next reason")
        assert reasons(running)[1].endswith("run python -m app.billing.workers migrate")
        assert status(running, "/health/ready") == 503

        make_tables(url)
        wait_for(
            lambda: status(running, "/health/ready") == 200,
            what="the workers",
        )
        assert running.output.count("the workers have joined") == 1
        running.run_job("record")
        running.stop()

    assert len(reasons(running)) == 2
    assert running.output.count("Traceback") == 1  # of the push, nothing else


# --- SIGTERM while the workers wait -------------------------------------------------------


def stopped_within(seconds: float, running: Service) -> None:
    """Sends SIGTERM, and expects a clean end within some seconds."""
    since = time.monotonic()
    running.stop()
    assert time.monotonic() - since < seconds, running.output
    assert "Traceback" not in running.output and PASSWORD not in running.output


def test_sigterm_while_the_database_is_down(patient: Recorder) -> None:
    url = f"postgresql://u:{PASSWORD}@127.0.0.1:{free_port()}/d"
    with patient.service(url) as running:
        wait_for(lambda: reasons(running), what="the first attempt")
        stopped_within(2, running)


def test_sigterm_while_the_server_does_not_answer(patient: Recorder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(10)
        url = f"postgresql://u:{PASSWORD}@127.0.0.1:{silent.getsockname()[1]}/d"
        with patient.service(url) as running:
            with silent.accept()[0]:
                stopped_within(2, running)


def test_sigterm_while_the_server_is_silent_after_the_login(
    patient: Recorder, server: Cluster
) -> None:
    with database(server.url()) as url, proxy(server.port) as silent:
        through = url.replace(str(server.port), str(silent.port))
        with lock(url, "LOCK TABLE billing_schema_version"):
            with patient.service(through) as running:
                wait_for_lock(url)
                silent.stall()
                stopped_within(2, running)
