"""Commands, servers and services that the tests share."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

TEMPLATE = Path(__file__).parents[1]
COPIER = [sys.executable, "-m", "copier"]
PROGRAM = Path(sys.executable).with_name("chancy-workers")
GIT = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.invalid"]
SECRET_VARIABLE = "POSTGRES_SUPABASE_SESSION_POOLER_URL"
# What a person may have set, and what would lead a test to a database of theirs.
PRIVATE = re.compile(
    "WORKERS_|POSTGRES_|PG|SENTRY_|AZURE_|LOG_LEVEL|VIRTUAL_ENV|PYTEST_"
)


def environment(**variables: str) -> dict[str, str]:
    """This process's environment without anything that could lead to a real service."""
    kept = {
        name: value for name, value in os.environ.items() if not PRIVATE.match(name)
    }
    return {**kept, "PYTHONDONTWRITEBYTECODE": "1", **variables}


def run(
    *command: str | Path,
    cwd: Path,
    env: Mapping[str, str] | None = None,
    check: bool = True,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Runs a command without a terminal; with `check`, its output is in the failure."""
    result = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=dict(env) if env is not None else environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    if check and result.returncode != 0:
        raise AssertionError(
            f"{' '.join(map(str, command))} ended with {result.returncode}:\n"
            f"{result.stdout}\n{result.stderr}"
        )
    return result


def copy(
    destination: str | Path,
    *arguments: str,
    cwd: Path,
    template: Path | str = TEMPLATE,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """`copier copy` as a person types it, Enter at every prompt, from the working tree."""
    return run(
        *COPIER,
        "copy",
        "--trust",
        "--defaults",
        *(["--vcs-ref=HEAD"] if template == TEMPLATE else []),
        *arguments,
        template,
        destination,
        cwd=cwd,
        check=check,
    )


def commit(folder: Path) -> None:
    """Makes a repository of a folder and commits everything in it."""
    run("git", "init", "--quiet", cwd=folder)
    run("git", "add", "--all", cwd=folder)
    run(*GIT, "commit", "--quiet", "--message=all", cwd=folder)


def wait_for(condition: Callable[[], Any], *, timeout: float, what: str) -> Any:
    """Returns the first true result of `condition`, which is asked every 50 ms."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {timeout} s")
        time.sleep(0.05)
    return result


@contextmanager
def database(server_url: str) -> Iterator[str]:
    """An empty database on the server, dropped afterwards; yields its URL."""
    name = f"template_test_{uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield url_of(server_url, name)
        finally:
            connection.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            )


def url_of(server_url: str, name: str, user: str | None = None) -> str:
    """The URL of another database, or for another user, on the same server."""
    parameters = {**conninfo_to_dict(server_url), "dbname": name}
    if user:
        parameters = {**parameters, "user": user}
    user_part = f"{parameters.get('user', '')}"
    if password := parameters.get("password"):
        user_part += f":{password}"
    host, port = str(parameters.get("host", "localhost")), parameters.get("port", 5432)
    if host.startswith("/"):
        return f"postgresql://{user_part}@/{name}?host={host}&port={port}"
    return f"postgresql://{user_part}@{host}:{port}/{name}"


def query(url: str, statement: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Runs one statement in a connection of its own; returns the rows it gives."""
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement, parameters or None)
        return cursor.fetchall() if cursor.description else []


def tables(url: str) -> list[str]:
    """The tables of a database, in order."""
    rows = query(
        url,
        "SELECT tablename FROM pg_tables WHERE schemaname NOT IN "
        "('pg_catalog', 'information_schema') ORDER BY tablename",
    )
    return [name for (name,) in rows]


class Service:
    """A service under the real uvicorn, as a process and a session of its own."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log
        self.address = ""

    @property
    def output(self) -> str:
        return self.log.read_text()

    def wait_until_up(self) -> None:
        def address() -> str | None:
            assert self.process.poll() is None, self.output
            found = re.search(r"running on (http://\S+)", self.output)
            return found[1] if found else None

        self.address = wait_for(address, timeout=30, what="the start of the service")

    def request(self, path: str, method: str = "GET") -> dict[str, Any]:
        """The JSON that the service answers with."""
        request = urllib.request.Request(f"{self.address}{path}", method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            answer: dict[str, Any] = json.load(response)
            return answer

    def run_job(self, job: str) -> str:
        """Pushes a job over HTTP and waits until it has succeeded; returns its id."""
        id = str(self.request(f"/jobs/{job}", "POST")["id"])
        wait_for(
            lambda: self.request(f"/jobs/{id}")["state"] == "succeeded",
            timeout=30,
            what=f"the job {job}",
        )
        return id

    def stop(self) -> None:
        """SIGTERM; the lifespan must be left cleanly and nothing must stay running."""
        self.process.terminate()
        status = self.process.wait(35)
        assert "Application shutdown complete" in self.output, self.output
        assert status == -signal.SIGTERM, self.output
        wait_for(
            lambda: not self.processes(),
            timeout=5,
            what="the end of the service's children",
        )

    def processes(self) -> list[int]:
        """The processes of the service's session that are still there."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    state, _, _, session = (
                        (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                    )
                except (FileNotFoundError, ProcessLookupError):
                    continue
                if session == str(self.process.pid) and state != "Z":
                    found.append(int(entry.name))
        return found


@contextmanager
def service(
    folder: Path,
    app: str,
    variables: Mapping[str, str],
    *,
    wait: bool = True,
    python: str | Path = sys.executable,
) -> Iterator[Service]:
    """Starts uvicorn in a backend's folder, for example with app.billing.main:app."""
    log = folder / f"uvicorn-{uuid4().hex}.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [str(python), "-m", "uvicorn", app, "--port", "0"],
            cwd=folder,
            env=environment(**variables),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    running = Service(process, log)
    try:
        if wait:
            running.wait_until_up()
        yield running
    finally:
        if running.processes():
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def migrate(folder: Path, package: str, url: str) -> None:
    """Creates the tables by the rendered command."""
    run(
        sys.executable,
        "-m",
        f"{package}.workers",
        "migrate",
        cwd=folder,
        env=environment(WORKERS_DATABASE_URL=url),
    )


def alarms(running: Service) -> list[str]:
    """The lines of the log, of any logger, at a level above INFO, and tracebacks."""
    return [
        line
        for line in running.output.splitlines()
        if re.search("WARNING|ERROR|CRITICAL|Traceback|never retrieved", line)
    ]
