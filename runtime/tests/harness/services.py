"""Services under the real uvicorn, and workers in a process of their own."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from harness.commands import environment, run, start, wait_for
from harness.forks import Fork


class Service:
    """A service under the real uvicorn, as a process and a session of its own."""

    def __init__(
        self,
        process: subprocess.Popen[bytes] | Fork,
        log: Path,
        clean_status: int = -signal.SIGTERM,
    ) -> None:
        self.process = process
        self.log = log
        self.clean_status = clean_status
        self.address = ""

    @property
    def output(self) -> str:
        return self.log.read_text()

    def wait_until_up(self) -> None:
        def address() -> str | None:
            assert self.process.poll() is None, self.output
            found = re.search(r"running on (http://\S+)", self.output)
            return found[1] if found else None

        self.address = wait_for(address, what="the start of the service")

    def request(self, path: str, method: str = "GET") -> dict[str, Any]:
        """Sends a request; returns the JSON of the answer."""
        request = urllib.request.Request(f"{self.address}{path}", method=method)
        with urllib.request.urlopen(request, timeout=60) as response:
            answer: dict[str, Any] = json.load(response)
            return answer

    def run_job(self, job: str) -> str:
        """Pushes a job over HTTP and waits until it has succeeded; returns its id."""
        id = str(self.request(f"/jobs/{job}", "POST")["id"])
        wait_for(
            lambda: self.request(f"/jobs/{id}")["state"] == "succeeded",
            what=f"the job {job}",
        )
        return id

    def stop(self) -> None:
        """Sends SIGTERM; the lifespan must end cleanly and no process may stay running."""
        self.process.terminate()
        status = self.process.wait(60)
        assert "Application shutdown complete" in self.output, self.output
        assert status == self.clean_status, self.output
        wait_for(
            lambda: not self.processes(),
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
    run: Sequence[str] = (),
) -> Iterator[Service]:
    """Starts uvicorn in a backend's folder, for example with app.billing.main:app.

    Args:
        run: The arguments of Python that start the workers alone instead of the app.
    """
    log = folder / f"uvicorn-{uuid4().hex}.log"
    with log.open("wb") as stream:
        process = start(
            [str(python), *(run or ("-m", "uvicorn", app, "--port", "0"))],
            folder,
            environment(**variables),
            stdout=stream.fileno(),
            stderr=stream.fileno(),
            session=True,
        )
    running = Service(process, log, 0 if run else -signal.SIGTERM)
    try:
        if wait:
            running.wait_until_up()
        yield running
    finally:
        with suppress(ProcessLookupError):  # They may have ended.
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def migrate(folder: Path, package: str, url: str) -> None:
    """Creates the tables with the rendered command."""
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
