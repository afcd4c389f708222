"""Cron jobs and workers at changes of DST, and on a host whose clock is wrong."""

import time
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from chancy_runtime.compat import next_run

from harness.clocks import shifted_clock
from harness.commands import wait_for
from harness.databases import query
from harness.recorder import Recorder, push, recorder, states

pytestmark = pytest.mark.xdist_group("clocks")

HOUR = 3600


def runs(cron: str, zone: str, start: str, count: int) -> list[str]:
    """The next runs after a time, in local time with its offset."""
    now = datetime.fromisoformat(start).replace(tzinfo=UTC)
    found = []
    for _ in range(count):
        now = next_run(cron, now, ZoneInfo(zone))
        found.append(now.astimezone(ZoneInfo(zone)).strftime("%d. %H:%M %z"))
    return found


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        # A fixed time that does not exist on that day: one run, at the end of the gap.
        ("30 2 * * *", ["29. 03:00 +0200", "30. 02:30 +0200", "31. 02:30 +0200"]),
        ("0 9 * * *", ["29. 09:00 +0200", "30. 09:00 +0200", "31. 09:00 +0200"]),
        # A wildcard: only the times that exist.
        ("*/30 * * * *", ["29. 01:30 +0100", "29. 03:00 +0200", "29. 03:30 +0200"]),
        ("*/15 2 * * *", ["30. 02:00 +0200", "30. 02:15 +0200", "30. 02:30 +0200"]),
    ],
)
def test_the_hour_that_is_skipped_in_spring(cron: str, expected: list[str]) -> None:
    assert runs(cron, "Europe/Berlin", "2026-03-29T00:10", 3) == expected


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        # A fixed time that occurs twice on that day: one run, the first time.
        ("30 2 * * *", ["25. 02:30 +0200", "26. 02:30 +0100", "27. 02:30 +0100"]),
        ("0 9 * * *", ["25. 09:00 +0100", "26. 09:00 +0100", "27. 09:00 +0100"]),
        # A wildcard: both times.
        ("30 * * * *", ["25. 02:30 +0200", "25. 02:30 +0100", "25. 03:30 +0100"]),
    ],
)
def test_the_hour_that_comes_twice_in_autumn(cron: str, expected: list[str]) -> None:
    assert runs(cron, "Europe/Berlin", "2026-10-25T00:10", 3) == expected


def test_utc_knows_no_such_days() -> None:
    for day in ("2026-03-29", "2026-10-25"):
        found = runs("30 2 * * *", "UTC", f"{day}T00:10", 2)
        assert [text[4:] for text in found] == ["02:30 +0000"] * 2


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    return recorder(tmp_path_factory.mktemp("clocks") / "backend", cron="0 0 1 1 *")


def leader(url: str) -> list[tuple[object, ...]]:
    """The leader, and whether its lease ends at the right time."""
    return query(
        url,
        "SELECT worker_id, expires_at > NOW() AND expires_at < NOW() + "
        "INTERVAL '11 seconds' FROM billing_leader",
    )


def test_hosts_whose_clocks_are_an_hour_wrong(
    backend: Recorder, url: str, tmp_path: Path
) -> None:
    """Cron, the lease, heartbeats and scheduled jobs all use the server's clock."""
    version = backend.version(tmp_path / "v1")
    ahead = shifted_clock(tmp_path / "clock", HOUR)
    behind = shifted_clock(tmp_path / "clock", -HOUR)

    with version.service(url, variables=ahead) as running:
        cron_goes_by_the_servers_clock(url, version)
        ((before, in_time),) = leader(url)
        assert in_time
        with version.service(url, variables=behind) as other:
            a_scheduled_job_waits_for_its_time(url, version)
            # Longer than a lease: each renews or tries to take over twice, and the
            # heartbeats of both are looked at by the one that leads.
            push(url, "long", seconds=13)
            time.sleep(12)
            assert leader(url) == [(before, True)]
            wait_for(lambda: states(url)["running"] == 0, what="the long job")
            assert query(
                url,
                "SELECT count(*)::int, bool_and(last_seen BETWEEN NOW() - INTERVAL "
                "'10 seconds' AND NOW()) FROM billing_workers",
            ) == [(2, True)]
            running.stop()
            a_failed_job_waits_by_the_servers_clock(url)
            # The leader, which also runs Cron, now has the clock that is behind.
            cron_goes_by_the_servers_clock(url, version)
            wait_for(
                lambda: leader(url) not in ([], [(before, True)]),
                what="the new leader",
            )
            assert leader(url)[0][1]
            other.stop()
            assert "3600 s ahead of the database's" in running.output
            assert "3600 s behind the database's" in other.output

    assert version.executions == {"cron": 2, "soon": 1, "long": 1}
    assert states(url) == {"succeeded": 4}
    assert query(
        url,
        "SELECT DISTINCT started_at <= completed_at "
        "AND completed_at < NOW() + INTERVAL '1 minute' FROM billing_jobs",
    ) == [(True,)]


def cron_goes_by_the_servers_clock(url: str, version: Recorder) -> None:
    def look(seconds: int) -> None:
        query(
            url,
            "UPDATE billing_cron SET cron = '* * * * *', last_run = NULL, "
            "next_run = NOW() + %s * INTERVAL '1 second'",
            seconds,
        )

    before = version.executions["cron"]
    look(HOUR // 2)
    time.sleep(3)
    assert version.executions["cron"] == before
    look(-1)
    wait_for(lambda: version.executions["cron"] > before, what="the run due")
    assert query(
        url,
        "SELECT 1 FROM billing_cron WHERE next_run > last_run "
        "AND next_run <= last_run + INTERVAL '1 minute' "
        "AND last_run BETWEEN NOW() - INTERVAL '20 seconds' AND NOW()",
    )
    look(HOUR)


def a_scheduled_job_waits_for_its_time(url: str, version: Recorder) -> None:
    ((soon,),) = query(url, "SELECT NOW() + INTERVAL '3 seconds'")
    id = push(url, "soon", scheduled_at=soon)
    wait_for(lambda: version.executions["soon"], what="the scheduled job")
    assert query(
        url,
        "SELECT started_at BETWEEN scheduled_at AND scheduled_at + INTERVAL '7 seconds' "
        "FROM billing_jobs WHERE id = %s",
        id,
    ) == [(True,)]


def a_failed_job_waits_by_the_servers_clock(url: str) -> None:
    missing = "app.billing.workers.record.worker.missing"
    id = push(url, "missing", func=missing, max_attempts=2)
    wait_for(lambda: states(url)["retrying"], what="the first attempt")
    assert query(
        url,
        "SELECT scheduled_at BETWEEN created_at + INTERVAL '15 seconds' "
        "AND NOW() + INTERVAL '19 seconds' FROM billing_jobs WHERE id = %s",
        id,
    ) == [(True,)]
    query(url, "DELETE FROM billing_jobs WHERE id = %s", id)
