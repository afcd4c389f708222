"""A deploy changes the queues of running replicas, and keeps an operator's pause."""

import re
import time
from pathlib import Path

import psycopg
import pytest

from harness.commands import wait_for
from harness.databases import query
from harness.recorder import Recorder, push, recorder, states

pytestmark = pytest.mark.xdist_group("queues")

# Records its thread, and the number of these jobs that run at that moment.
COUNTING_JOB = '''"""The record job."""

import asyncio
import os
import threading

from chancy_runtime import job

running = 0


@job(queue="default")
async def record(*, note: str, seconds: float = 0) -> None:
    """Records its thread, and sleeps."""
    global running
    running += 1
    name = "main" if threading.current_thread() is threading.main_thread() else "other"
    with open(os.environ["EXECUTIONS"], "a") as file:
        file.write(f"{note} in {name} beside {running - 1}\\n")
    await asyncio.sleep(seconds)
    running -= 1
'''


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    folder = tmp_path_factory.mktemp("queues") / "backend"
    return recorder(folder, job=COUNTING_JOB)


def queue(name: str = "default", **settings: object) -> str:
    """The declaration of one queue."""
    settings = {"concurrency": 100, "executor": "Async", **settings}
    executor = settings.pop("executor")
    rest = ", ".join(f"{key}={value!r}" for key, value in settings.items())
    return (
        f'Queue("{name}", executor=Chancy.Executor.{executor}, '
        f"polling_interval=1, eager_polling=True, {rest})"
    )


def version(backend: Recorder, folder: Path, *queues: str) -> Recorder:
    return backend.version(folder, QUEUES=f"[{', '.join(queues)}]")


def deploy(new: Recorder, url: str) -> str:
    """Starts and stops a new version; returns its output."""
    with new.service(url) as running:
        running.stop()
    return running.output


def run(recorder: Recorder, url: str, count: int, queue: str = "default") -> set[str]:
    """Runs a number of jobs at the same time; returns how each was executed."""
    recorder.executions_file.write_text("")
    query(url, "DELETE FROM billing_jobs")
    for _ in range(count):
        push(url, "it", queue=queue, seconds=1)
    wait_for(lambda: states(url) == {"succeeded": count}, what="the jobs' end")
    assert recorder.executions.total() == count
    return set(recorder.executions)


def test_changed_settings_take_effect_in_a_replica_that_runs(
    backend: Recorder, url: str, tmp_path: Path
) -> None:
    old = version(backend, tmp_path / "v1", queue(concurrency=1))
    with old.service(url) as running:
        assert run(old, url, 3) == {"it in main beside 0"}

        deploy(version(backend, tmp_path / "v2", queue(concurrency=2)), url)
        assert run(old, url, 3) == {"it in main beside 0", "it in main beside 1"}

        deploy(version(backend, tmp_path / "v3", queue(executor="Threaded")), url)
        assert run(old, url, 1) == {"it in other beside 0"}

        limited = queue(rate_limit=2, rate_limit_window=3600)
        deploy(
            version(backend, tmp_path / "v4", limited, queue("added", concurrency=1)),
            url,
        )
        assert run(old, url, 2, queue="added") == {"it in main beside 0"}
        for _ in range(4):
            push(url, "limited")
        wait_for(
            lambda: states(url) == {"succeeded": 4, "pending": 2},
            what="the limit",
        )

        deploy(version(backend, tmp_path / "v5", queue(tags={"^other$"})), url)
        wait_for(
            lambda: "Removed queue default" in running.output,
            what="the end of the queue in this worker",
        )
        assert states(url) == {"succeeded": 4, "pending": 2}
        assert "ERROR" not in running.output
        running.stop()


def pause(url: str) -> list[tuple[object, ...]]:
    return query(
        url,
        "SELECT concurrency, state, resume_at > NOW() + INTERVAL '30 minutes' "
        "FROM billing_queues",
    )


def notify(url: str, statement: str) -> None:
    """Changes a queue and notifies the workers, like Chancy's dashboard."""
    query(url, statement)
    query(url, """SELECT pg_notify('billing_events', '{"t": "queue.paused"}')""")


PAUSING = (
    "UPDATE billing_queues SET state = 'paused', resume_at = NOW() + INTERVAL '1 hour'"
)


def test_a_pause_stays_when_the_queue_changes(
    backend: Recorder, url: str, tmp_path: Path
) -> None:
    deploy(version(backend, tmp_path / "v1", queue(concurrency=1)), url)
    query(url, PAUSING)

    deploy(version(backend, tmp_path / "v2", queue(concurrency=2)), url)

    assert pause(url) == [(2, "paused", True)]


def test_a_pause_during_the_deploy_stays(
    backend: Recorder, url: str, tmp_path: Path
) -> None:
    deploy(version(backend, tmp_path / "v1", queue(concurrency=1)), url)
    new = version(backend, tmp_path / "v2", queue(concurrency=2))

    with psycopg.connect(url) as operator:
        operator.execute(PAUSING)
        with new.service(url, wait=False) as running:
            wait_for(
                lambda: query(
                    url,
                    "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() "
                    "AND wait_event_type = 'Lock'",
                ),
                what="the deploy's wait for the operator",
            )
            operator.commit()
            running.wait_until_up()
            running.stop()

    assert pause(url) == [(2, "paused", True)]


def test_a_pause_ends_at_its_own_end_and_not_at_an_earlier_one(
    backend: Recorder, url: str, tmp_path: Path
) -> None:
    def pause_for(seconds: int) -> str:
        return (
            "UPDATE billing_queues SET state = 'paused', "
            f"resume_at = NOW() + INTERVAL '{seconds} seconds'"
        )

    with version(backend, tmp_path / "v1", queue()).service(url) as running:
        notify(url, pause_for(2))
        wait_for(
            lambda: "Updated configuration" in running.output,
            what="the worker's hearing of the pause",
        )
        query(url, pause_for(3600))
        push(url, "it")
        time.sleep(4)
        assert pause(url) == [(100, "paused", True)]
        assert states(url) == {"pending": 1}

        notify(url, pause_for(1))
        wait_for(lambda: states(url)["succeeded"], what="the end of the pause")
        assert pause(url) == [(100, "active", None)]
        running.stop()


def test_a_pause_that_is_over_does_not_wait_for_a_long_job(
    backend: Recorder, url: str, tmp_path: Path
) -> None:
    with version(backend, tmp_path / "v1", queue()).service(url) as running:
        push(url, "long", seconds=600)
        wait_for(lambda: states(url)["running"], what="the long job")
        notify(url, "UPDATE billing_queues SET state = 'paused'")
        wait_for(
            lambda: "Updated configuration" in running.output,
            what="the worker's hearing of the pause",
        )
        push(url, "short")
        time.sleep(3)  # The queue polls each second.
        assert states(url) == {"running": 1, "pending": 1}
        notify(url, "UPDATE billing_queues SET state = 'active'")
        wait_for(
            lambda: states(url) == {"running": 1, "succeeded": 1},
            what="the job beside the long one",
        )


def test_a_removed_queue_with_jobs_is_logged_once_and_kept(
    backend: Recorder, url: str, tmp_path: Path
) -> None:
    both = version(backend, tmp_path / "v1", queue(), queue("old"), queue("empty"))
    deploy(both, url)
    for number in range(3):
        query(
            url,
            "UPDATE billing_jobs SET scheduled_at = NOW() + INTERVAL '1 hour' "
            "WHERE id = %s",
            push(url, f"late {number}", queue="old"),
        )

    output = deploy(version(backend, tmp_path / "v2", queue()), url)

    (line,) = re.findall(r".*no longer declared.*", output)
    assert "the queue old is no longer declared and holds 3 jobs" in line
    assert "chancy.delete_queue('old')" in line
    assert states(url) == {"pending": 3}
    assert query(url, "SELECT name FROM billing_queues ORDER BY name") == [
        ("default",),
        ("empty",),
        ("old",),
    ]
