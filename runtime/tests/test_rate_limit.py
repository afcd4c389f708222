"""A rate limit holds across replicas whose clocks differ."""

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from harness.clocks import shifted_clock
from harness.commands import environment, run, wait_for
from harness.databases import query
from harness.recorder import Recorder, push, recorder, states

pytestmark = pytest.mark.xdist_group("rate_limit")

SHIFTS = (0, 5, -5)
LIMIT = 5


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    return recorder(tmp_path_factory.mktemp("rate_limit") / "backend")


def test_the_clocks_of_these_tests_are_off(tmp_path: Path) -> None:
    variables = shifted_clock(tmp_path / "clock", 3600)
    program = (
        "import time; from datetime import UTC, datetime; "
        "print(time.time(), datetime.now(tz=UTC).timestamp())"
    )

    def clocks(env: dict[str, str]) -> list[float]:
        output = run(sys.executable, "-c", program, cwd=tmp_path, env=env).stdout
        return [float(text) for text in output.split()]

    true, shifted = clocks(environment()), clocks(environment(**variables))
    assert [b - a for a, b in zip(true, shifted, strict=True)] == pytest.approx(
        [3600, 3600], abs=60
    )


@pytest.mark.parametrize(
    ("window", "jobs"),
    [(5, 20), pytest.param(10, 40, marks=pytest.mark.slow)],
)
def test_a_limit_holds_in_each_window_of_the_servers_clock(
    window: int, jobs: int, backend: Recorder, url: str, tmp_path: Path
) -> None:
    version = backend.version(
        tmp_path / "v1",
        QUEUES='[Queue("default", executor=Chancy.Executor.Async, polling_interval=1, '
        f"rate_limit={LIMIT}, rate_limit_window={window}, eager_polling=True)]",
    )
    with ExitStack() as stack:
        replicas = [
            stack.enter_context(
                version.service(
                    url, variables=shifted_clock(tmp_path / "clock", shift), wait=False
                )
            )
            for shift in SHIFTS
        ]
        for replica in replicas:
            replica.wait_until_up()
        for number in range(jobs):
            push(url, f"job {number}")
        wait_for(
            lambda: states(url) == {"succeeded": jobs},
            timeout=3 * window * jobs / LIMIT,
            what="the end of the jobs",
        )
        for replica in replicas:
            replica.stop()

    windows = query(
        url,
        "SELECT floor(extract(epoch FROM started_at) / %s)::int AS w, count(*)::int, "
        "count(DISTINCT taken_by)::int FROM billing_jobs GROUP BY w ORDER BY w",
        window,
    )
    assert max(count for _, count, _ in windows) <= LIMIT
    # The limit must not slow jobs down: few windows more than needed, and all replicas work.
    assert len(windows) <= jobs / LIMIT + 2
    taken_by = query(url, "SELECT count(DISTINCT taken_by)::int FROM billing_jobs")
    assert taken_by[0][0] >= 2
    assert version.executions.total() == jobs
