"""A start that cannot succeed ends with one line that names the way out."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .support import SECRET_VARIABLE, copy, environment, migrate, run, service

APP = "app.billing.main:app"
DOWN = "postgresql://someone:hunter2@127.0.0.1:1/billing"


def failed_start(folder: Path, variables: dict[str, str]) -> str:
    """What a service prints that must end within 15 seconds, without running."""
    with service(folder, APP, variables, wait=False) as running:
        assert running.process.wait(15) == 3, running.output
    assert "hunter2" not in running.output
    assert "Started plugin" not in running.output
    return running.output


def the_line(output: str) -> str:
    """The one line that is no uvicorn routine; a traceback would be many."""
    routine = ("Started server", "Waiting for application", "startup failed. Exiting")
    lines = [
        line
        for line in output.splitlines()
        if not any(text in line for text in routine)
    ]
    assert len(lines) == 1, output
    return lines[0]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://hunter2@[::1", "WORKERS_DATABASE_URL cannot be parsed"),
        ("someone:hunter2", "WORKERS_DATABASE_URL cannot be parsed"),
        (
            "postgresql+asyncpg://someone:hunter2@h/d",
            "WORKERS_DATABASE_URL is not of the form",
        ),
        (
            "postgresql://someone:p@sshunter2@h/d",
            "WORKERS_DATABASE_URL cannot be parsed",
        ),
        (
            "postgresql://someone:hunter2/x@h:1/d",
            "WORKERS_DATABASE_URL cannot be parsed",
        ),
        (DOWN, "127.0.0.1:1/billing (connection failed"),
    ],
)
def test_a_url_that_leads_nowhere(url: str, reason: str, backend: Path) -> None:
    line = the_line(failed_start(backend, {"WORKERS_DATABASE_URL": url}))

    assert reason in line
    assert "postgresql://user:password@host" in line or "start it" in line


URLS = """
import os, sys
from app.billing.workers.chancy_database import database_url
from app.billing.workers.chancy_errors import WorkersError

for line in sys.stdin.buffer.read().split(b"\\n"):
    os.environb[b"WORKERS_DATABASE_URL"] = line
    try:
        database_url("A-SECRET", os.environ.__getitem__)
        print("taken")
    except WorkersError as error:
        print(error)
"""


def said_of(folder: Path, urls: list[str] | list[bytes]) -> list[str]:
    """What database_url() says of each URL: "taken", or its message."""
    result = subprocess.run(
        [sys.executable, "-c", URLS],
        input=b"\n".join(u if isinstance(u, bytes) else u.encode() for u in urls),
        cwd=folder,
        env=environment(),
        capture_output=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.decode().splitlines()


def test_a_password_that_spills_over_into_the_target_is_refused(backend: Path) -> None:
    urls = [
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
    ]
    lines = said_of(backend, urls)

    for url, line in zip(urls, lines, strict=True):
        assert "WORKERS_DATABASE_URL cannot be parsed: write it as postgres" in line, (
            url
        )
        assert "percent-encoded" in line and "hunter2" not in line


def test_every_form_of_a_target_is_taken(backend: Path) -> None:
    urls = [
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

    assert said_of(backend, urls) == ["taken"] * len(urls)


def test_no_url_at_all(backend: Path) -> None:
    line = the_line(failed_start(backend, {}))

    assert "the secret POSTGRES-SUPABASE-SESSION-POOLER-URL cannot be read" in line
    assert SECRET_VARIABLE in line and "AZURE_KEY_VAULT_URL" in line
    assert "set it, or WORKERS_DATABASE_URL" in line


def test_the_secret_is_used_without_the_variable(
    backend: Path, database_url: str
) -> None:
    line = the_line(failed_start(backend, {SECRET_VARIABLE: DOWN}))
    assert "127.0.0.1:1/billing" in line

    migrate(backend, "app.billing", database_url)
    with service(backend, APP, {SECRET_VARIABLE: f"{database_url}\n"}) as running:
        running.run_job("send_digest")
        running.stop()


def test_no_tables(backend: Path, database_url: str) -> None:
    line = the_line(failed_start(backend, {"WORKERS_DATABASE_URL": database_url}))

    assert "the tables billing_* at " in line and "missing or too old" in line
    assert line.endswith("run python -m app.billing.workers migrate")


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ('timezone="Europe/Atlantis"', "Europe/Atlantis"),
        ('cron="0 0 31 2 *"', "0 0 31 2 *"),
    ],
)
def test_a_schedule_that_cannot_be(
    written: str, name: str, backend: Path, database_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "backend"
    shutil.copytree(backend, folder)
    module = folder / "app" / "billing" / "workers" / "chancy_initialization.py"
    key = written.partition("=")[0]
    lines = [
        f"        {written}," if line.strip().startswith(f"{key}=") else line
        for line in module.read_text().splitlines()
    ]
    module.write_text("\n".join(lines))
    migrate(folder, "app.billing", database_url)

    output = failed_start(folder, {"WORKERS_DATABASE_URL": database_url})

    (line,) = (line for line in output.splitlines() if "cron:send_digest" in line)
    assert name in line and "correct it in app.billing.workers" in line


def test_the_traceback_is_there_at_debug_level(backend: Path) -> None:
    output = failed_start(backend, {"WORKERS_DATABASE_URL": DOWN, "LOG_LEVEL": "debug"})

    assert "Traceback (most recent call last)" in output
    assert "psycopg.OperationalError" in output


@pytest.fixture
def bare_environment(tmp_path: Path) -> Path:
    """A virtual environment with what the service has before its workers."""
    folder = tmp_path / "venv"
    uv("venv", "--quiet", str(folder))
    install(folder, "fastapi", "uvicorn")
    return folder


def uv(*arguments: str) -> None:
    command = os.environ.get("UV") or shutil.which("uv")
    assert command, "uv is not installed: python3 -m pip install uv"
    run(command, *arguments, cwd=Path.cwd())


def install(folder: Path, *requirements: str) -> None:
    uv(
        "pip",
        "install",
        "--quiet",
        "--python",
        str(folder / "bin" / "python"),
        *requirements,
    )


def test_a_missing_or_old_package_is_named_with_the_command(
    bare_environment: Path, backend: Path, tmp_path: Path
) -> None:
    def start() -> str:
        result = subprocess.run(
            [bare_environment / "bin" / "python", "-c", "import app.billing.workers"],
            cwd=backend,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert result.returncode == 1
        (line,) = result.stderr.splitlines()
        assert "run uv add" in line and '"chancy[cron]>=0.26,<0.27"' in line
        return line

    line = start()
    assert "chancy is not installed" in line
    assert "psycopg is not installed" in line and "sentry-sdk is not installed" in line

    install(bare_environment, "chancy==0.25.*", "psycopg[pool]", "sentry-sdk==1.45.1")
    line = start()
    assert "chancy 0.25" in line and "is older than 0.26" in line
    assert "sentry-sdk 1.45.1 is older than 2.1" in line

    install(bare_environment, "chancy==0.26.*", "sentry-sdk>=2.1")
    assert "chancy is installed without its extra cron (croniter" in start()


def test_the_service_and_its_tests_end_with_the_line_as_well(
    bare_environment: Path, backend: Path, tmp_path: Path
) -> None:
    python = bare_environment / "bin" / "python"
    root = tmp_path / "other"
    (root / "app" / "billing").mkdir(parents=True)
    (root / "pyproject.toml").touch()
    (root / "app" / "billing" / "__init__.py").touch()
    copy("app/billing", cwd=root)
    packages = ["chancy[cron]==0.26.*", "psycopg[binary]", "psycopg-pool", "sentry-sdk"]
    install(bare_environment, "pytest", *packages)
    for package in packages:
        name = package.partition("[")[0]
        uv("pip", "uninstall", "--quiet", "--python", str(python), name)
        for folder in (backend, root):
            result = run(
                *(python, "-m", "uvicorn", APP),
                cwd=folder,
                env=environment(),
                check=False,
                timeout=15,
            )
            assert result.returncode == 1
            (line,) = result.stderr.splitlines()
            assert f"{name} is not installed" in line and "run uv add" in line

        for tests in ("app", "app/billing/workers"):
            result = run(
                *(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", tests),
                cwd=backend,
                env=environment(),
                check=False,
            )
            assert result.returncode != 0
            lines = (result.stdout + result.stderr).splitlines()
            # Where CI is set, pytest's summary repeats the whole line.
            (said,) = {
                line[line.index("app.billing.workers: ") :]
                for line in lines
                if "run uv add" in line and 'f"' not in line
            }
            assert f"{name} is not installed" in said
            assert len(lines) < 12 and "INTERNALERROR" not in result.stdout
        install(bare_environment, package)


def test_a_package_that_is_too_new_is_named(backend: Path) -> None:
    program = (
        "from app.billing.workers.chancy_requirements import check_requirements\n"
        "check_requirements('chancy[cron]>=0.20,<0.21')"
    )
    result = run(sys.executable, "-c", program, cwd=backend, check=False)

    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert 'is not older than 0.21: run uv add "chancy[cron]>=0.20,<0.21"' in line


def test_a_push_before_the_start_says_what_to_do(backend: Path) -> None:
    program = "from app.billing.workers.chancy_instance import get_chancy; get_chancy()"
    result = run(sys.executable, "-c", program, cwd=backend, check=False)

    assert result.stderr.splitlines()[-1] == (
        "RuntimeError: Chancy is not running in this process: enter initialize_workers() of "
        "app.billing.workers.chancy_initialization first, as the lifespan in main.py does."
    )
