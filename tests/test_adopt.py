"""Services with hand-written workers become rendered ones and keep their database."""

import asyncio
import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from chancy import Chancy
from chancy.plugins.cron import Cron

from .adoptions import BILLING, adopt, contents, settle
from .support import (
    COPIER,
    MYPY,
    PROGRAM,
    PYTEST,
    SECRET_VARIABLE,
    WITHOUT_ASYNCIO,
    Service,
    commit,
    database,
    environment,
    query,
    run,
    service,
    tables,
    wait_for,
)

APP = "app.billing.main:app"
BUILDS = "Builds the service's one Chancy"
ODD_TIME = "2031-02-03 04:05:06+00"


@dataclass(frozen=True)
class House:
    """The expected content of a folder of tests/house."""

    jobs: tuple[str, ...]
    cron: tuple[str, ...] = ()
    prefix: str = "billing_"
    default_plugins: bool = False
    secret: str = SECRET_VARIABLE


DIGEST = ("send_digest/send_digest",)
# The other cases take minutes and run only with --slow.
ALWAYS = ("document", "cron", "names")
HOUSE: dict[str, House] = {
    "document": House(DIGEST, ("send_digest_cron",)),
    "tags": House((*DIGEST, "build_report/build_report"), ("digest", "report")),
    "rates": House(
        (
            "sync_orders/sync_orders",
            "call_partner/call_partner",
            "crunch_numbers/crunch_numbers",
        )
    ),
    "cron": House(
        DIGEST, ("clean_up_cron", "digest:acme", "digest:globex", "digest:weekly")
    ),
    "names": House(
        ("invoices/close_month", "invoices/send_reminders", "test_mail/mail"),
        ("close_month", "send_reminders"),
    ),
    "constants": House(DIGEST, ("billing_digest",)),
    "top_level": House(DIGEST, ("digest",)),
    "secrets": House(
        DIGEST, ("digest",), default_plugins=True, secret="VAULT_POOLER_URL"
    ),
    "own_ways": House(DIGEST, ("d",), prefix="billing"),
}


async def create_tables(house: House, url: str) -> None:
    """Runs Chancy's own migration, like the house document."""
    chancy = Chancy(
        url,
        prefix=house.prefix,
        plugins=[Cron()],
        no_default_plugins=not house.default_plugins,
    )
    async with chancy:
        await chancy.migrate()


@dataclass
class Story:
    """A service before and after its adoption, with the content of its database."""

    house: House
    root: Path
    url: str
    printed: str = ""
    files: list[dict[str, bytes]] = field(default_factory=list)
    tables: list[list[str]] = field(default_factory=list)
    cron: list[list[tuple[Any, ...]]] = field(default_factory=list)
    queues: list[list[tuple[Any, ...]]] = field(default_factory=list)

    def query(self, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Runs a statement with placeholders such as {jobs} for the tables' names."""
        names = {
            name: f'"{self.house.prefix}{name}"' for name in ("jobs", "cron", "queues")
        }
        return query(self.url, statement.format(**names), *parameters)

    def look(self) -> None:
        """Records what must be the same before and after the adoption."""
        self.files.append(contents(self.root))
        self.tables.append(tables(self.url))
        columns = "unique_key, cron, timezone, next_run, last_run"
        self.cron.append(self.query(f"SELECT {columns} FROM {{cron}} ORDER BY 1"))
        columns = "name, executor, rate_limit, rate_limit_window, polling_interval"
        self.queues.append(self.query(f"SELECT {columns} FROM {{queues}} ORDER BY 1"))

    def service(self) -> Any:
        return service(self.root, APP, {self.house.secret: self.url})

    def push(self, running: Service, seconds: int, key: str = "") -> list[str]:
        """Pushes every job of the house; returns their ids."""
        options = f"seconds={seconds}" + (f"&key={key}" if key else "")
        jobs = self.house.jobs[:1] if key else self.house.jobs
        return [running.request(f"/push/{j}?{options}", "POST")["id"] for j in jobs]

    def make_due(self, ids: list[str]) -> None:
        self.query("UPDATE {jobs} SET scheduled_at = now() WHERE id = ANY(%s)", ids)

    def runs_of_cron(self) -> dict[str, int]:
        rows = self.query(
            "SELECT unique_key, count(*) FROM {jobs} "
            "WHERE unique_key = ANY(%s) AND state = 'succeeded' GROUP BY 1",
            [*self.house.cron],
        )
        return dict(rows)

    def wait_until_succeeded(self, running: Service, ids: list[str]) -> None:
        """Waits until each job has succeeded at its first attempt."""
        statement = "SELECT func, state, attempts FROM {jobs} WHERE id = ANY(%s)"

        def have_succeeded() -> bool:
            rows = self.query(statement, ids)
            assert "failed" not in {state for _, state, _ in rows}, (
                f"{rows}:\n{running.output}"
            )
            return {row[1:] for row in rows} == {("succeeded", 1)}

        wait_for(have_succeeded, what="the jobs")


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            name,
            marks=[
                pytest.mark.xdist_group(name),
                *([] if name in ALWAYS else [pytest.mark.slow]),
            ],
        )
        for name in HOUSE
    ],
)
def story(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    server_url: str,
    released: Path,
) -> Iterator[Story]:
    """A house that ran, stopped with jobs and cron rows left, was adopted and ran again."""
    house = HOUSE[request.param]
    root = tmp_path_factory.mktemp("backends") / request.param
    settle(request.param, root)
    with database(server_url) as url:
        story = Story(house, root, url)
        asyncio.run(create_tables(house, url))
        with story.service() as running:
            story.wait_until_succeeded(running, story.push(running, 0))
            due, later = story.push(running, 3600), story.push(running, 3600)
            (once,) = story.push(running, 3600, "once")
            running.stop()
        story.make_due(due)
        story.query(
            "UPDATE {cron} SET next_run = %s, last_run = %s", ODD_TIME, "2026-1-2"
        )
        story.look()

        story.printed = adopt(root, released, "--yes").stdout

        with story.service() as running:
            story.wait_until_succeeded(running, due)
            assert story.push(running, 3600, "once") == [once]
            waiting = story.query("SELECT id::text FROM {jobs} WHERE state = 'pending'")
            assert sorted(waiting) == sorted((id,) for id in [*later, once])
            story.look()
            running.stop()
        story.make_due(later)
        story.query("UPDATE {cron} SET next_run = now() - INTERVAL '1 minute'")
        with story.service() as running:
            story.wait_until_succeeded(running, later)
            wait_for(
                lambda: story.runs_of_cron().keys() == set(house.cron),
                what="the runs of cron",
            )
            assert "Traceback" not in running.output, running.output
            running.stop()
        yield story


def test_the_tables_stay_and_only_the_library_s_indexes_are_missing(
    story: Story,
) -> None:
    before, after = story.tables

    assert before == after
    status = run(
        *(sys.executable, "-m", "app.billing.workers", "status", "--json"),
        cwd=story.root,
        env=environment(**{story.house.secret: story.url}),
        check=False,
    )
    parts = json.loads(status.stdout)["parts"]
    assert [part["name"] for part in parts if part["due"]] == ["chancy_runtime"]


def test_schedules_keep_their_keys_and_their_next_run_and_run_once(
    story: Story,
) -> None:
    before, after = story.cron

    assert before == after
    assert [row[0] for row in after] == [*story.house.cron]
    assert story.runs_of_cron() == dict.fromkeys(story.house.cron, 1)


def test_the_rows_of_queues_stay_the_same(story: Story) -> None:
    before, after = story.queues

    assert before == after


def test_no_file_of_the_team_is_lost(story: Story) -> None:
    before, after = story.files
    workers = "app/billing/workers"
    replaced = {
        f"{workers}/{name}.py"
        for name in ("chancy_initialization", "chancy_instance", "__init__")
    }

    kept = before.keys() - replaced
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert [name for name in kept if name.endswith("worker.py")]


def test_ruff_finds_nothing_in_the_written_files(story: Story) -> None:
    before, after = story.files
    written = [
        name
        for name in after
        if name.endswith(".py") and after[name] != before.get(name)
    ]

    ruff = [sys.executable, "-m", "ruff"]
    run(*ruff, "check", "--no-cache", "--select=E4,E7,E9,F,I", *written, cwd=story.root)
    run(*ruff, "format", "--no-cache", "--check", *written, cwd=story.root)


def test_mypy_finds_no_new_errors_in_the_written_files(
    story: Story, mypy_cache: Path, tmp_path: Path
) -> None:
    config = tmp_path / "mypy.ini"
    config.write_text(MYPY)
    errors = []
    for number, files in enumerate(story.files):
        for name, content in files.items():
            path = tmp_path / str(number) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        result = run(
            *(sys.executable, "-m", "mypy", "--strict", f"--config-file={config}"),
            *(f"--cache-dir={mypy_cache}", "--explicit-package-bases", "app"),
            cwd=tmp_path / str(number),
            check=False,
        )
        assert "checked" in result.stdout or "no issues" in result.stdout, result
        found = re.findall(r"^(.*?):\d+: (error: .*)", result.stdout, re.MULTILINE)
        errors.append(set(found))

    assert errors[1] <= errors[0]


def test_the_rendered_tests_and_the_team_s_tests_pass(
    story: Story, server_url: str
) -> None:
    result = run(
        *PYTEST,
        *WITHOUT_ASYNCIO,
        BILLING / "workers",
        cwd=story.root,
        env=environment(WORKERS_TEST_DATABASE_URL=server_url),
    )

    assert "skipped" not in result.stdout


def test_the_printed_command_adds_the_library_with_the_needed_extras(
    story: Story, released: Path
) -> None:
    file = story.root / BILLING / "workers" / "chancy_initialization.py"
    extras = "fastapi,sentry" if "SentryPlugin(" in file.read_text() else "fastapi"

    (line,) = re.findall(r"uv add .*chancy-runtime.*", story.printed)
    place = f"git+file://localhost{released}#subdirectory=runtime"
    assert line == f'uv add --tag v0.1.1 "chancy-runtime[{extras}] @ {place}"'


def test_adding_a_job_and_the_next_release_both_merge(
    story: Story, released: Path, tmp_path: Path
) -> None:
    later = tmp_path / "later"
    run("git", "clone", "--quiet", released, later, cwd=tmp_path)
    template = next(later.glob("template/*/workers/chancy_initialization.py.jinja"))
    text = template.read_text()
    assert text.count(BUILDS) == 1
    template.write_text(text.replace(BUILDS, "Builds it as a later release does"))
    commit(later)
    run("git", "tag", "v0.2.0", cwd=later)
    root = tmp_path / "backend"
    shutil.copytree(story.root, root)
    answers = root / BILLING / ".copier-answers.yml"
    answers.write_text(answers.read_text().replace(str(released), str(later)))
    commit(root)

    run(PROGRAM, "add-job", BILLING, "tidy", "--schedule=0 4 * * *", cwd=root)
    commit(root)
    run(*COPIER, "update", "--trust", "--defaults", BILLING, cwd=root)

    text = (root / BILLING / "workers" / "chancy_initialization.py").read_text()
    assert "as a later release does" in text
    assert not [name for name, each in contents(root).items() if b"<<<<<<<" in each]
    code = (
        "from app.billing.workers.chancy_initialization import CRON_JOBS\n"
        "print(*(each.unique_key for each in CRON_JOBS))"
    )
    printed = run(sys.executable, "-c", code, cwd=root).stdout.split()
    assert sorted(printed) == sorted([*story.house.cron, "cron:tidy"])
