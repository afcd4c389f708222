"""Each due run of a cron job happens exactly once, whatever is deployed at that time."""

import itertools
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from harness.commands import wait_for
from harness.databases import query
from harness.recorder import RECORDING_JOB, Recorder, push, recorder, states
from harness.servers import Cluster
from harness.services import Service

pytestmark = pytest.mark.xdist_group("cron")

NOTED_JOB = f'''{RECORDING_JOB}

def noted(note: str) -> SimpleNamespace:
    """The record job with a note, as another job."""
    return SimpleNamespace(job=record.job.with_kwargs(note=note))
'''.replace("import os\n", "import os\nfrom types import SimpleNamespace\n")
NEVER = "0 0 1 1 *"
STATEMENT = """
    UPDATE billing_cron c SET next_run = NOW() - INTERVAL '1 second'
    WHERE unique_key = ANY(%s) AND next_run > NOW() AND NOT EXISTS (
        SELECT FROM billing_jobs j WHERE j.unique_key = c.unique_key
        AND j.state NOT IN ('succeeded', 'failed'))
    RETURNING unique_key
"""


WAITING = """
    SELECT count(*)::int FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    """A backend with one cron job; each test creates its own versions of it."""
    folder = tmp_path_factory.mktemp("cron") / "backend"
    backend = recorder(folder, cron=NEVER, job=NOTED_JOB)
    backend.add_import("from .record.worker import noted")
    return backend


def cron_jobs(**schedules: str) -> str:
    """The constant CRON_JOBS, with one cron job for each name and its expression."""
    lines = [
        f'CronJob(job=noted("{name}"), cron="{cron}", name="{name}"),'
        for name, cron in schedules.items()
    ]
    return f"[{' '.join(lines)}]"


def expressions(url: str) -> dict[str, str]:
    """The schedules in the database."""
    rows = query(url, "SELECT unique_key, cron FROM billing_cron ORDER BY unique_key")
    return {key.removeprefix("cron:"): cron for key, cron in rows}


def make_due(url: str, *names: str) -> int:
    """Makes the schedules due whose last run is done; returns their number."""
    return len(query(url, STATEMENT, [f"cron:{name}" for name in names]))


def restart(
    backend: Recorder, url: str, *, until: Callable[[], bool], alive: float
) -> None:
    """Starts and stops the service again and again."""
    while not until():
        with backend.service(url) as running:
            time.sleep(alive)
            running.stop()


def test_each_due_run_happens_once_through_restarts_of_two_replicas(
    backend: Recorder, url: str, tmp_path: Path
) -> None:
    version = backend.version(tmp_path / "v1", CRON_JOBS=cron_jobs(a=NEVER, b=NEVER))
    with version.service(url) as running:
        running.stop()
    due = 0
    starts = itertools.count()

    def enough() -> bool:
        return next(starts) >= 8 and due >= 8

    with ThreadPoolExecutor() as pool:
        replicas = [
            pool.submit(restart, version, url, until=enough, alive=alive)
            for alive in (0.5, 1.7)
        ]
        while not all(replica.done() for replica in replicas):
            due += make_due(url, "a", "b")
            time.sleep(0.1)
        for replica in replicas:
            replica.result()
    with version.service(url) as running:
        wait_for(lambda: version.executions.total() >= due, what="the last runs")
        running.stop()

    assert version.executions.total() == due
    assert states(url) == {"succeeded": due}


def test_replicas_that_poll_at_the_same_moment_push_a_run_once(
    backend: Recorder, url: str, tmp_path: Path
) -> None:
    version = backend.version(tmp_path / "v1", CRON_JOBS=cron_jobs(a=NEVER))

    with version.service(url) as one, version.service(url) as other:
        with psycopg.connect(url) as gate:
            gate.execute("LOCK TABLE billing_cron")
            gate.execute("UPDATE billing_cron SET next_run = NOW()")
            wait_for(
                lambda: query(url, WAITING) == [(2,)],
                what="two at the gate",
            )
        wait_for(lambda: states(url)["succeeded"], what="the run")
        other.stop()
        one.stop()

    assert version.executions == {"a": 1}
    assert states(url) == {"succeeded": 1}


@pytest.mark.slow
def test_each_minute_is_run_once_through_twenty_restarts(
    backend: Recorder, url: str, tmp_path: Path
) -> None:
    version = backend.version(tmp_path / "v1", CRON_JOBS=cron_jobs(a="* * * * *"))
    with version.service(url) as running:
        running.stop()
    upcoming = "SELECT extract(epoch FROM next_run)::int / 60 FROM billing_cron"
    ((first,),) = query(url, upcoming)
    start = time.monotonic()
    counter = iter(range(20))

    with ThreadPoolExecutor() as pool:
        replicas = [
            pool.submit(
                restart,
                *(version, url),
                until=lambda: next(counter, None) is None,
                alive=alive,
            )
            for alive in (7, 8)
        ]
        for replica in replicas:
            replica.result()

    assert next(counter, None) is None and time.monotonic() - start < 150
    ((after_last,),) = query(url, upcoming)
    assert after_last > first
    assert version.executions == {"a": after_last - first}
    assert states(url) == {"succeeded": after_last - first}


def test_a_run_that_came_due_while_down_happens_once_at_the_next_start(
    backend: Recorder, url: str, tmp_path: Path
) -> None:
    """No process lives for a minute, which is Cron's interval."""
    version = backend.version(
        tmp_path / "v1", CRON_JOBS=cron_jobs(a=NEVER), SETTINGS="Settings()"
    )
    with version.service(url) as running:
        running.stop()

    for run in (1, 2, 3):
        assert make_due(url, "a") == 1
        with ExitStack() as stack:
            replicas = [
                stack.enter_context(version.service(url, wait=False)) for _ in range(2)
            ]
            for replica in replicas:
                replica.wait_until_up()
            wait_for(
                lambda: version.executions["a"] == run,  # noqa: B023
                what="the run that was due",
            )
            for replica in replicas:
                replica.stop()
        assert states(url) == {"succeeded": run}


def test_a_deploy_changes_schedules_and_keeps_due_runs(
    backend: Recorder, url: str, tmp_path: Path
) -> None:
    old = backend.version(
        tmp_path / "old",
        CRON_JOBS=cron_jobs(
            same=NEVER, other=NEVER, moved=NEVER, overdue=NEVER, gone=NEVER
        ),
    )
    new = backend.version(
        tmp_path / "new",
        CRON_JOBS=cron_jobs(
            same=NEVER,
            other=NEVER,
            moved="0 0 2 2 *",
            overdue="0 0 2 2 *",
            added="0 0 3 3 *",
        ).replace('noted("other")', 'noted("with other arguments")'),
    )
    with old.service(url) as running:
        query(
            url,
            "INSERT INTO billing_cron SELECT 'of other code', jsonb_set(job, '{m}', '{}'), "
            "cron, NULL, next_run, timezone FROM billing_cron "
            "WHERE unique_key = 'cron:same'",
        )
        running.stop()
    assert make_due(url, "same", "other", "overdue", "gone") == 4

    with new.service(url) as running:
        wait_for(lambda: states(url)["succeeded"] == 3, what="the runs due")
        running.stop()

    assert new.executions == {"same": 1, "with other arguments": 1, "overdue": 1}
    assert expressions(url) == {
        "same": NEVER,
        "other": NEVER,
        "moved": "0 0 2 2 *",
        "overdue": "0 0 2 2 *",
        "added": "0 0 3 3 *",
        "of other code": NEVER,
    }
    upcoming = query(
        url,
        "SELECT DISTINCT (next_run AT TIME ZONE 'UTC')::date::text FROM billing_cron "
        "WHERE unique_key IN ('cron:moved', 'cron:overdue') AND next_run > NOW()",
    )
    assert [text[-5:] for (text,) in upcoming] == ["02-02"]


def stamp(hours: int) -> dict[str, str]:
    """The variable of a deployment this number of hours after noon of a past day."""
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)
    return {"WORKERS_DEPLOYED_AT": (noon + timedelta(hours=hours)).isoformat()}


def test_the_later_deployment_wins_whichever_replica_restarts(
    backend: Recorder, url: str, tmp_path: Path
) -> None:
    old = backend.version(tmp_path / "old", CRON_JOBS=cron_jobs(a="0 0 1 1 *"))
    new = backend.version(tmp_path / "new", CRON_JOBS=cron_jobs(a="0 0 2 2 *"))

    def restarted(stack: ExitStack, version: Recorder, hours: int) -> dict[str, str]:
        running: Service = stack.enter_context(
            version.service(url, variables=stamp(hours))
        )
        found = expressions(url)
        running.stop()
        return found

    with old.service(url, variables=stamp(1)), ExitStack() as stack:
        assert expressions(url) == {"a": "0 0 1 1 *"}
        stack.enter_context(new.service(url, variables=stamp(2)))
        assert expressions(url) == {"a": "0 0 2 2 *"}
        # A replica of the old version and one of the new version restart beside each other.
        assert restarted(stack, old, 1) == {"a": "0 0 2 2 *"}
        assert restarted(stack, new, 2) == {"a": "0 0 2 2 *"}
        # The rollback, and then a restart of a replica that is not rolled back yet.
        assert restarted(stack, old, 3) == {"a": "0 0 1 1 *"}
        assert restarted(stack, new, 2) == {"a": "0 0 1 1 *"}


def test_without_a_stamp_the_later_start_wins(
    backend: Recorder, url: str, tmp_path: Path
) -> None:
    old = backend.version(tmp_path / "old", CRON_JOBS=cron_jobs(a="0 0 1 1 *"))
    new = backend.version(tmp_path / "new", CRON_JOBS=cron_jobs(a="0 0 2 2 *"))
    far_ahead = {"WORKERS_DEPLOYED_AT": "2079-01-01"}

    for version, expected in ((old, "0 0 1 1 *"), (new, "0 0 2 2 *")):
        # A stamp in the future blocks other deployments no longer than the time of its start.
        with version.service(url, variables=far_ahead) as running:
            assert expressions(url) == {"a": expected}
            running.stop()
    with old.service(url) as running:
        assert expressions(url) == {"a": "0 0 1 1 *"}
        running.stop()


def test_four_starts_at_once_and_twenty_runs_due_do_not_deadlock(
    backend: Recorder, url: str, server: Cluster, tmp_path: Path
) -> None:
    names = [f"job{number:02}" for number in range(20)]
    versions = []
    for day in range(1, 5):
        order = names[5 * day :] + names[: 5 * day]
        schedules = {name: f"0 0 {day} 1 *" for name in order[:: (-1) ** day]}
        versions.append(
            backend.version(
                tmp_path / f"v{day}",
                CRON_JOBS=cron_jobs(**schedules),
            )
        )
    before = server.log.read_text()
    due = 0

    with psycopg.connect(url) as gate, ExitStack() as stack:
        gate.execute("LOCK TABLE billing_cron")
        running = [
            stack.enter_context(version.service(url, wait=False))
            for version in versions
        ]
        wait_for(lambda: query(url, WAITING) == [(4,)], what="four at the gate")
        gate.commit()
        for service in running:
            service.wait_until_up()
        assert len(set(expressions(url).values())) == 1
        assert len(expressions(url)) == 20
        for _ in range(5):
            due += wait_for(lambda: make_due(url, *names), what="a round")
        wait_for(lambda: states(url)["succeeded"] == due, what="the last runs")
        for service in running:
            service.stop()

    assert versions[0].executions.total() == due
    assert "deadlock" not in server.log.read_text().removeprefix(before)
    assert not [each for each in running if "ERROR" in each.output]


def test_a_job_that_only_the_new_version_has_is_left_to_it(
    backend: Recorder, url: str, tmp_path: Path
) -> None:
    old = backend.version(tmp_path / "old", CRON_JOBS="[]")
    new = backend.version(tmp_path / "new", CRON_JOBS="[]")
    workers = new.folder / "app/billing/workers"
    shutil.copytree(workers / "record", workers / "added")
    func = "app.billing.workers.added.worker.record"

    with old.service(url, variables=stamp(1)) as running:
        push(url, "nobody has it", func=func)
        wait_for(lambda: states(url)["failed"] == 1, what="the failure")
        ((error,),) = query(url, "SELECT errors -> 0 ->> 'traceback' FROM billing_jobs")
        assert f"{func} cannot be imported: No module named" in error

        with new.service(url, variables=stamp(2)) as later:
            later.stop()
        id = push(url, "the new one has it", func=func)
        wait_for(
            lambda: f"left the job {id}" in running.output,
            what="the old version's giving it back",
        )
        assert not new.executions
        running.stop()

    with new.service(url, variables=stamp(2)) as later:
        wait_for(lambda: states(url)["succeeded"] == 1, what="the new one's run")
        later.stop()
    assert new.executions == {"the new one has it": 1}
    assert query(url, "SELECT attempts FROM billing_jobs WHERE id = %s", id) == [(1,)]


def test_runs_that_come_due_during_a_run_fall_together(
    backend: Recorder, url: str, tmp_path: Path
) -> None:
    version = backend.version(
        tmp_path / "v1",
        CRON_JOBS=f"""[CronJob(
            job=SimpleNamespace(job=noted("a").job.with_kwargs(note="a", seconds=600)),
            cron="{NEVER}", name="a")]""",
    )
    version.add_import("from types import SimpleNamespace")

    with version.service(url):
        assert make_due(url, "a") == 1
        wait_for(lambda: states(url)["running"], what="the first run")
        query(url, "UPDATE billing_cron SET next_run = NOW()")
        wait_for(
            lambda: query(url, "SELECT 1 FROM billing_cron WHERE next_run > NOW()"),
            what="Cron's poll at the second",
        )
        assert states(url) == {"running": 1}
    assert version.executions == {"a": 1}
