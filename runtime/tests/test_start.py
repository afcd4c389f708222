"""A start that cannot succeed ends with one line that names the way out."""

import asyncio
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest
from chancy_runtime import (
    Chancy,
    WorkersError,
    check_database,
    database_url,
    get_secret_value,
    migrate,
)

from harness.commands import environment, run
from harness.recorder import APP, Recorder, recorder
from harness.starts import LONGEST, the_line

# The variable of the example's secret.
SECRET_VARIABLE = "POSTGRES_SUPABASE_SESSION_POOLER_URL"
DOWN = "postgresql://someone:hunter2@127.0.0.1:1/billing"
SPILLING = [
    b"postgresql://user:p@sshunter2@127.0.0.1:9/db",
    b"postgresql://user:hunter2@@127.0.0.1:9/db",
    b"postgresql://user:hunter2/x@127.0.0.1:9/db",
    b"postgresql://user:12/hunter2@127.0.0.1:9/db",
    b"postgresql://user:hunter2#/x@127.0.0.1:9/db",
    b"postgresql://user:a,hunter2/x@127.0.0.1:9/db",
    b"postgresql://us@er:hunter2@127.0.0.1:9/db",
    b"postgresql://user:p%40ss@h,hunter2@127.0.0.1/db",
    b"postgresql://?host=user:hunter2",
    b"postgresql://user@h:hunter2/db",
    b"host=127.0.0.1 port=hunter2",
    b"postgresql://user:hunter2\xff@127.0.0.1:9/db",
    b"postgresql://user:hunter2%ff@127.0.0.1:9/db",
    b"postgresql://hunter2@[::1",
    b"someone:hunter2",
]
TAKEN = [
    "postgresql://user:p%40ss%2Fw%3Ard@127.0.0.1:9/db",
    "postgresql://postgres.abc:a:b!#?$@x.pooler.supabase.com:5432/postgres",
    "postgresql://user:a:b!#$@h1:1,h2,[::1]:3/db",
    "postgresql://user@[fe80::1%25eth0]/db",
    "postgresql://%2Fvar%2Frun%2Fa:b@c/db",
    "postgresql:///db?host=/tmp/a@b:c&port=5433",
    "postgresql://user%40server:x@h/db",
    "host=h1,/tmp,::1 port=1,,3 dbname=db user=me",
    "hostaddr=::1,127.0.0.1 dbname='with a blank'",
    "dbname=db",
]


def failed_start(backend: Recorder, variables: dict[str, str]) -> str:
    """The output of a service that must end during its start."""
    with backend.service("", variables=variables, wait=False) as running:
        assert running.process.wait(LONGEST) == 3, running.output
    assert "hunter2" not in running.output
    assert "Started plugin" not in running.output
    return running.output


def test_a_system_without_poll_is_refused_before_it_connects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Like Windows, on which these tests do not run."""
    app = Chancy(DOWN, prefix="billing_")
    monkeypatch.delattr(select, "poll")

    for start in (check_database, migrate, Chancy.__aenter__):
        with pytest.raises(WorkersError, match=r"run on Linux and macOS only.*: start"):
            asyncio.run(start(app))


def test_a_url_that_leads_nowhere(backend: Recorder) -> None:
    line = the_line(failed_start(backend, {"WORKERS_DATABASE_URL": DOWN}))

    assert "127.0.0.1:1/billing (connection failed" in line
    assert "start it" in line


def test_a_url_of_another_database(backend: Recorder) -> None:
    url = "mysql+aiomysql://someone:hunter2@h/d"
    line = the_line(failed_start(backend, {"WORKERS_DATABASE_URL": url}))

    assert "WORKERS_DATABASE_URL is not of the form" in line
    assert "postgresql://user:password@host" in line


def test_a_url_that_cannot_be_parsed(backend: Recorder) -> None:
    url = "postgresql://someone:p@sshunter2@h/d"
    line = the_line(failed_start(backend, {"WORKERS_DATABASE_URL": url}))

    assert "WORKERS_DATABASE_URL cannot be parsed" in line


@pytest.mark.parametrize("url", SPILLING)
def test_a_password_that_spills_over_into_the_target_is_refused(
    url: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environb, b"WORKERS_DATABASE_URL", url)
    with pytest.raises(WorkersError) as error:
        database_url("A-SECRET", get_secret_value)

    line = str(error.value)
    assert "WORKERS_DATABASE_URL cannot be parsed: write it as postgres" in line
    assert "percent-encoded" in line and "hunter2" not in line


@pytest.mark.parametrize("url", TAKEN)
def test_every_form_of_a_target_is_taken(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKERS_DATABASE_URL", url)

    assert database_url("A-SECRET", get_secret_value) == url


def test_no_url_at_all(backend: Recorder) -> None:
    line = the_line(failed_start(backend, {}))

    assert "the secret POSTGRES-SUPABASE-SESSION-POOLER-URL cannot be read" in line
    assert SECRET_VARIABLE in line and "AZURE_KEY_VAULT_URL" in line
    assert "set it, or WORKERS_DATABASE_URL" in line


def test_the_secret_is_used_without_the_variable(
    backend: Recorder, migrated_url: str
) -> None:
    line = the_line(failed_start(backend, {SECRET_VARIABLE: DOWN}))
    assert "127.0.0.1:1/billing" in line

    secret = {SECRET_VARIABLE: f"{migrated_url}\n"}
    with backend.service("", variables=secret) as running:
        running.run_job("record")
        running.stop()


@pytest.mark.parametrize(
    ("cron", "timezone"),
    [("0 0 1 1 *", "Europe/Atlantis"), ("0 0 31 2 *", "UTC")],
)
def test_an_impossible_schedule(
    cron: str, timezone: str, migrated_url: str, tmp_path: Path
) -> None:
    backend = recorder(tmp_path / "backend", cron=cron)
    backend.edit("chancy_initialization.py", '"UTC"', f'"{timezone}"')

    output = failed_start(backend, {"WORKERS_DATABASE_URL": migrated_url})

    (line,) = (line for line in output.splitlines() if "cron:record" in line)
    wrong = cron if timezone == "UTC" else timezone
    assert wrong in line and "correct it in app.billing.workers" in line


def test_the_traceback_is_there_at_debug_level(backend: Recorder) -> None:
    variables = {"WORKERS_DATABASE_URL": DOWN, "LOG_LEVEL": "debug"}
    output = failed_start(backend, variables)

    assert "Traceback (most recent call last)" in output
    assert "psycopg.OperationalError" in output


def test_a_library_that_is_too_old_ends_the_service_and_its_tests_with_one_line(
    tmp_path: Path,
) -> None:
    backend = recorder(tmp_path / "backend")
    backend.edit("__init__.py", 'require_version("0.8")', 'require_version("99.1")')
    (backend.workers / "test_it.py").write_text("from . import chancy_instance\n")
    message = "the workers of this service need chancy-runtime 99.1 or later"

    def end(*command: str) -> subprocess.CompletedProcess[str]:
        return run(
            *(sys.executable, "-m", *command),
            cwd=backend.folder,
            env=environment(),
            check=False,
            timeout=120,
        )

    for command in (("uvicorn", APP), ("app.billing.workers", "status")):
        result = end(*command)
        assert result.returncode == 1
        (line,) = result.stderr.splitlines()
        assert message in line

    result = end("pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "app")
    assert result.returncode != 0
    assert message in result.stdout and "INTERNALERROR" not in result.stdout


def test_a_push_before_the_start_says_what_to_do(backend: Recorder) -> None:
    program = "from app.billing.workers.chancy_instance import get_chancy; get_chancy()"
    result = run(sys.executable, "-c", program, cwd=backend.folder, check=False)

    assert result.stderr.splitlines()[-1] == (
        "RuntimeError: Chancy is not running in this process: enter initialize_workers() of "
        "app.billing.workers.chancy_initialization first, as the lifespan in main.py does."
    )
