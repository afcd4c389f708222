"""The answers of a service to the probes of its platform."""

import json
import urllib.error
from typing import Any

from harness.commands import wait_for
from harness.services import Service


def readiness(running: Service) -> tuple[int, dict[str, Any]]:
    """The status and the body of /health/ready."""
    try:
        return 200, running.request("/health/ready")
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def wait_until_ready(running: Service) -> None:
    wait_for(
        lambda: readiness(running)[0] == 200,
        what=f"the readiness of the service ({readiness(running)})",
    )
