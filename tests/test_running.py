"""The answer run_workers decides where the workers of a rendered service run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.probes import wait_until_ready

from .support import OPTIONAL_PLUGINS, copy, database, migrate, query, service, wait_for

RUN = ("-m", "app.billing.workers", "run", "--port", "0")


def test_the_api_pushes_and_the_command_runs_the_workers(
    rendered: Callable[[str, dict[str, object]], Path], server_url: str
) -> None:
    folder = rendered("optional-plugins", OPTIONAL_PLUGINS)
    with database(server_url) as url:
        variables = {"WORKERS_DATABASE_URL": url}
        migrate(folder, "app.billing", url)
        with service(folder, "app.billing.main:app", variables) as api:
            wait_until_ready(api)
            id = api.request("/jobs/send_digest", "POST")["id"]
            assert query(url, "SELECT * FROM billing_queues") == []
            with service(folder, "", variables, run=RUN) as own:
                wait_for(
                    lambda: api.request(f"/jobs/{id}")["state"] == "succeeded",
                    what="the job",
                )
                wait_until_ready(own)
                own.stop()
            api.stop()

    (line,) = [line for line in own.output.splitlines() if "digest ran" in line]
    # The format of the API's configure_logging().
    assert line.endswith(
        " INFO app.billing.workers.send_digest.worker: send_digest ran: request"
    )
    assert "Started plugin" not in api.output


@pytest.mark.parametrize(
    ("package", "main", "module"),
    [
        ("app.billing", "main.py", "app.billing.main"),
        ("app.billing", "../main.py", "app.main"),
        ("app.billing", "../../main.py", "main"),
        ("billing", "web/server.py", "billing.web.server"),
        # A start from there has another top folder, which is not known here.
        ("billing", "../../main.py", ""),
        ("billing", "the app/main.py", ""),
    ],
)
def test_the_command_imports_the_module_with_the_app(
    package: str, main: str, module: str, layout: Any
) -> None:
    assert str(layout.app_module(package, main)) == module


@pytest.fixture
def layout(macros_of: Callable[[str], Any]) -> Any:
    return macros_of("layout")


@pytest.mark.parametrize(
    ("run_workers", "words"),
    [
        ("in_api", ""),
        ("own_process", "The API only pushes jobs; they run in a second process"),
        ("both", "Workers with process: own run in a second process, beside the API"),
    ],
)
def test_the_closing_message_names_the_second_process(
    run_workers: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "app/billing").mkdir(parents=True)
    (tmp_path / "app/billing/main.py").write_text(
        "from fastapi import FastAPI\n\napp = FastAPI()\n"
    )

    printed = copy(
        "app/billing", "-d", f"run_workers={run_workers}", cwd=tmp_path
    ).stderr

    assert (words in printed) if words else ("second process" not in printed)
    assert ("uv run python -m app.billing.workers run" in printed) is bool(words)
    # Without a second process, an existing service may use another server.
    assert ('"uvicorn>=0.30"' in printed) is bool(words)
