"""The service in the library's README works as printed."""

import json
import re
import subprocess
import sys
import urllib.request
from pathlib import Path

from harness.commands import environment, run, wait_for
from harness.databases import query
from harness.probes import wait_until_ready
from harness.services import service

README = Path(__file__).parents[1] / "README.md"


def printed_service() -> str:
    """The Python in the README."""
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    return str(block)


def test_it_runs_a_job(tmp_path: Path, database_url: str) -> None:
    (tmp_path / "billing.py").write_text(printed_service())
    variables = {"DATABASE_URL": database_url}
    command, address = re.findall(r"`(\S[^`]*)`", printed_service())[:2]
    assert address == "uvicorn billing:app"

    migrated = run(
        *(sys.executable, *command.split()[1:]),
        cwd=tmp_path,
        env=environment(**variables),
    )
    assert "billing_* at " in migrated.stdout

    with service(tmp_path, "billing:app", variables) as running:
        wait_until_ready(running)
        request = urllib.request.Request(
            f"{running.address}/digests?to=ann", method="POST"
        )
        with urllib.request.urlopen(request, timeout=60) as response:
            assert response.status == 202
            id = json.load(response)
        wait_for(
            lambda: query(
                database_url,
                "SELECT 1 FROM billing_jobs WHERE id = %s AND state = 'succeeded'",
                id,
            ),
            what="the job",
        )
        running.stop()
    assert running.output.count("a digest for ann") == 1


def test_without_its_tables_it_names_the_command(
    tmp_path: Path, database_url: str
) -> None:
    (tmp_path / "billing.py").write_text(printed_service())
    variables = {"DATABASE_URL": database_url}
    with service(tmp_path, "billing:app", variables, wait=False) as running:
        assert running.process.wait(60) == 3

    assert "run python -m billing migrate\n" in running.output
    assert "Traceback" not in running.output


def test_it_is_short_typed_and_formatted(tmp_path: Path) -> None:
    code = printed_service()
    assert len([line for line in code.splitlines() if line.strip()]) <= 40
    (tmp_path / "billing.py").write_text(code)

    for tool in (
        ["mypy", "--strict"],
        ["ruff", "format", "--check"],
    ):
        result = subprocess.run(
            [sys.executable, "-m", *tool, "billing.py"],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stdout + result.stderr
